"""Components of another package."""
