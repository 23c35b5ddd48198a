"""The worked example of the metrics: 4 x 6 pixels, three classes, checked by hand.

mIoU 7/12; the figures that belong to it stand in the tests.
"""

import numpy as np

TRUTH = np.array(
    [[0, 0, 0, 0, 0, 255], [0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 2, 2], [0, 0, 0, 2, 255, 255]], np.uint8
)
PREDICTION = np.array(
    [[0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 2, 2], [0, 1, 2, 0, 2, 1], [0, 0, 1, 0, 0, 2]], np.uint8
)
REGION = np.array([[0] * 6, [0, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0], [0] * 6], bool)
ABSTAINING = PREDICTION.copy()
ABSTAINING[[0, 1, 3], [0, 1, 3]] = 255
