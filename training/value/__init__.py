"""Parts of `train value`: rows of past moments, the fits, the choice between them, and the evaluation."""
