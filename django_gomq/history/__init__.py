"""What kept history tells."""
