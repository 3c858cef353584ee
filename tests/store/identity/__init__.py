"""identity against a real Postgres."""
