"""Helpers of `train uplift`: who buys because of a contact."""
