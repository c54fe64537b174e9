"""A better or a larger version of an item."""
