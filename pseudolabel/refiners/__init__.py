"""Refiners: scores to scores, one a file."""
