"""Superpixel engines, used by refiners and resolvers."""
