"""Evaluation of recommendations: split protocols, metrics, slices of customers, and the comparison of models."""
