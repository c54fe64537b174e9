"""Floor 3: recommenders, classifiers, lookalike: fit, predict, save, load, nothing else. Imports `features` and `qianmian`."""
