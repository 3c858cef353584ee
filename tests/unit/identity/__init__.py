"""What identity decides from arguments alone."""
