"""What commerce does, in which order, inside which transaction."""
