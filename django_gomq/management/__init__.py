"""What ``manage.py gomq`` does, one module for each subcommand."""
