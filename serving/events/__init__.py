"""Events that a running server accepts."""
