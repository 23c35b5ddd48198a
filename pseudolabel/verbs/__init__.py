"""Verbs: rooms joined into lines; what the command line calls."""
