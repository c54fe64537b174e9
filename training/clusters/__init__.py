"""Behaviour clusters: the space, the number of clusters, their names, and their ids from one training to the next."""
