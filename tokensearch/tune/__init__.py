"""What learned steps begin with and end as: queries from k-means, thresholds as static counts."""
