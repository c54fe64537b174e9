"""Recommendation of contents: articles, videos and messages."""
