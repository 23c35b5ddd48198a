"""Backgrounds: scores to label scores, background included, one a file."""
