"""Recommendations of contents: what to read, watch or be told."""
