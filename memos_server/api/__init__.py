"""The gRPC surface: thin servicers and the interceptors before them."""
