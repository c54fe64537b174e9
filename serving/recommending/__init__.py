"""The recommendation pipeline: request options, ranking, re-ranking and reasons, for one customer or many."""
