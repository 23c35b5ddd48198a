"""Experiment: time and memory of a recipe with several branches."""
