"""One file per gRPC service: convert, call one use case, convert back."""
