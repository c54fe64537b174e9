"""What a customer buys in the next order."""
