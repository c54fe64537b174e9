"""Scores by rows of the profiles, for single requests and as tables of all customers."""
