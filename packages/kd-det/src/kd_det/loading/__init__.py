"""What is in a file of weights, and whether it fits a detector."""
