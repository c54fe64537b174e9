"""What `train left` learns from: customers of the past whose own window is over."""
