"""SmoothGrad, BinaryMask and random crops at equal numbers of backward passes."""
