"""The runtime, without I/O."""
