"""Measurement of what campaigns cause: differences between the arms of a randomised experiment."""
