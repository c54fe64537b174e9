"""Recommendation of better or larger versions of items."""
