"""Training by one loop: weights under a policy, thresholds, mergers; and what these begin with."""
