"""Resolvers: scores to belief, background included, one a file."""
