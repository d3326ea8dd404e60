"""What operators see of all processes of a site, and have them do."""
