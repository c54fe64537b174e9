"""Demand types of newcomers: what they look at first, and what they buy and read next."""
