"""Images before and after each component of post-processing."""
