"""Recommenders, classifiers and lookalike: fit, predict, save, load. Imports `features` and `qianmian`."""
