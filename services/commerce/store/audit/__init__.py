"""The books against each other: a file for what is checked. Every check reads, and none repairs."""
