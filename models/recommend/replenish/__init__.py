"""What a customer bought before and is about to use up."""
