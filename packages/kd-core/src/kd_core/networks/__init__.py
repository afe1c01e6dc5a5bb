"""What is asked of any network: task, taps, roles, shapes, folding, memory format."""
