"""What `train classify` and `train propensity` share: which calibrated classifier ships, and its evaluation."""
