"""The four services, their shared runtime and the command line."""
