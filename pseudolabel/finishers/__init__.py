"""Finishers: belief to belief, one a file; argmax comes after the last."""
