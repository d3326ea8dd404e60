"""A laboratory whose analyser can be made slow or flaky, to watch what follows."""
