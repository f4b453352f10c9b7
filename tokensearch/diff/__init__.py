"""The difference of two profiles, term by term, with intervals."""
