"""Recommendation of items that a customer bought before and is due to buy again."""
