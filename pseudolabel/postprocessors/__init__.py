"""Postprocessors: label scores to label scores, one a file; argmax comes after the last."""
