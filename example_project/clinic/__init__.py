"""A small clinic that shows django-gomq at work."""
