"""Losses of `seg train`: (logits, labels, state) to one value. One component a file."""
