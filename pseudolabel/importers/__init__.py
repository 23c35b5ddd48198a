"""Importers: masks and maps of other tools to ours, one a file."""
