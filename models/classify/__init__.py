"""Classifiers over profile features, after scikit-learn's API."""
