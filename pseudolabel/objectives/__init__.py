"""Objectives: what a classifier is trained to do, one objective a file."""
