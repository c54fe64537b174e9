"""From raw files to customer profiles: sources, ingest, identity, features, tags and training sets.

This layer imports only `qianmian`.
"""
