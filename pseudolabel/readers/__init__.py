"""Readers: a file format or a generator to a Dataset, one a file."""
