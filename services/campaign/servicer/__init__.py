"""One servicer for each gRPC service of campaign."""
