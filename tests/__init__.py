"""The tests of django-gomq: one folder for each part of the package."""
