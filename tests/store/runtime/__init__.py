"""The runtime, against a real Postgres and Valkey."""
