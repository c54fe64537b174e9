"""Floor 2: from raw files to profiles. Sources, ingest, identity, feature and tag definitions, the builder. Imports only `qianmian`."""
