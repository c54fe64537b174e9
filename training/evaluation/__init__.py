"""How recommendations are measured: protocols that split, metrics, slices with intervals, and the comparison of several models."""
