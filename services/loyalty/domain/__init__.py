"""What can be decided from arguments alone."""
