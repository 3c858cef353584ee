"""What campaign decides from arguments alone."""
