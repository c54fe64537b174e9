"""Customer lifetime value: how many orders each customer will place within a horizon, and how much they will pay."""
