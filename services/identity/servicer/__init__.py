"""One file per gRPC service: check, convert, call one use case, convert back."""
