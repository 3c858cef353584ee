"""Protos to the domain and back; calls to the peers in the domain's words."""
