"""Aggregators: a map method made of a map method, one a file."""
