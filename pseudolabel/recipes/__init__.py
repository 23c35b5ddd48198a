"""Recipes: YAML and overrides to a frozen typed recipe; the schemas of `pl`."""
