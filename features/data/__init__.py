"""Raw rows to canonical tables: sources, ingest, the lake, identity and the hashing of personal data."""
