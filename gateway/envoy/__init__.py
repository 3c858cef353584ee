"""Envoy's configuration, rendered from the contracts; no route is written by hand."""
