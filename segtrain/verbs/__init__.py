"""Verbs of `seg`: rooms joined into lines."""
