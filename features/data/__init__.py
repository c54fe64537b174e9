"""From raw rows to canonical tables: sources, ingest, lake, identity resolution and hashing of personal data."""
