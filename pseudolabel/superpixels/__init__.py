"""Superpixel engines, used by refiners and resolvers: an engine a file, its function of the file's name."""
