"""Bricks of another package."""
