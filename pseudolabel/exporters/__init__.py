"""Exporters: a run's masks to the form that one consumer reads, one a file."""
