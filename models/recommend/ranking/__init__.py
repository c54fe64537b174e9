"""Two-stage recommendation: candidates from several models, ranked by gradient-boosted trees."""
