"""Uplift: how much a customer's outcome changes because of a contact."""
