"""One page for all processes that share PROMETHEUS_MULTIPROC_DIR."""
