"""Scores of customers by rows of the profiles, for single requests and as tables of everyone."""
