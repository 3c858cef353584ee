"""The `siyu` command line: the local stack and its supervisor, the demonstration, the audit."""
