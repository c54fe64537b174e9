"""Choices on validation data: parameters, the candidates that can be paid for, blends, and the candidate that ships."""
