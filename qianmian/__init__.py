"""Floor 1: the words everybody shares: schema, errors, configuration, workspace paths. Imports no other floor."""

__version__ = "0.1.0"
