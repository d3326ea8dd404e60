"""What a user might pick instead, each as its own documentation uses it."""
