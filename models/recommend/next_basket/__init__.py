"""Recommendation of the items of the next order."""
