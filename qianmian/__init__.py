"""Lowest layer: schema, errors, settings, industry packs and workspace paths. It imports no other layer."""

__version__ = "0.1.0"
