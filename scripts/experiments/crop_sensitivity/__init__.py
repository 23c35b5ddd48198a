"""How the number, the scale and the chunks of random crops change the maps."""
