"""Uplift: trials, average effects, metrics, and the choice of the model that ships."""
