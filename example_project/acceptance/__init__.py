"""The proof behind `make demo`: three independent sources must agree.

It reads answers, rows and metrics; it imports neither Django nor django-gomq.
"""
