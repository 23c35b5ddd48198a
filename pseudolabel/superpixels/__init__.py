"""Superpixel engines, used by refiners and backgrounds: one engine a file, its function has that name."""
