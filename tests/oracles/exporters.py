"""Written exports read back as their consumers read them, without the exporters.

Each function gives the class names and the masks by id; a third value says what a mask comes back as where
the form cannot hold everything.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def grey(out):
    ids = (out / "list.txt").read_text(encoding="utf-8").split("\n")[:-1]
    masks = {}
    for item in ids:
        with Image.open(out / "masks" / f"{item}.png") as image:
            assert image.mode == "L"
            masks[item] = np.array(image)
    return (out / "classes.txt").read_text(encoding="utf-8").split("\n")[:-1], masks
