"""What `train churn` learns from, which models it chooses between, and how it says what it found."""
