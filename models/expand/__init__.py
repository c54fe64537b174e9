"""Lookalike expansion: more customers like a seed."""
