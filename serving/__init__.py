"""HTTP API and batch scoring with the champions of the model registry.

This package never imports `training`, and it is the only one that imports `bentoml`.
"""
