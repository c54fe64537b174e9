"""Erasing a customer: who is taken out, the tombstones that stop a return, and the places that hold customers."""
