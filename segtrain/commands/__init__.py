"""Commands of `seg`: kinds joined into lines."""
