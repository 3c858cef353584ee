"""Events that cannot be handled: what is parked, how it drains, what is told of it."""
