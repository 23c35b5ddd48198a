"""Several recipes to one table: what must run, its stages, the report."""
