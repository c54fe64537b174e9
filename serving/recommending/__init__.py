"""The recommendation pipeline: request options, ranking, re-ranking, explanations, one customer or many."""
