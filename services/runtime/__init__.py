"""Machinery that every service runs on and that knows no business: it would read the same in any company."""
