"""identity: one member ID for a person over every channel; stores, clients, tokens and tenants."""
