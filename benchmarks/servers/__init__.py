"""What is measured on databases and Redis, of this project and of its peers."""
