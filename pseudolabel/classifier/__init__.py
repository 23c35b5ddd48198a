"""The image classifier that maps are taken from: network, loop, checkpoint."""
