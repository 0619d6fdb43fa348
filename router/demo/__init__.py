"""A small world of network namespaces, and traffic to play on it."""
