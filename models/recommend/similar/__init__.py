"""Items similar to an item, by attributes and by behaviour."""
