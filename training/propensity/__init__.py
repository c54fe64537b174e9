"""What `train propensity` learns from, and how it evaluates each target."""
