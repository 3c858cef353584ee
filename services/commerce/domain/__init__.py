"""What commerce can decide from arguments alone: no I/O, no proto, no SQL."""
