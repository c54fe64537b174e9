"""Classifiers over profile features, with the API of scikit-learn."""
