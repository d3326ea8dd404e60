"""A hospital ward whose rounds are events: the site that every server runs."""
