"""Make `referees.npz`: what captum, torchcam and pytorch-grad-cam answer on the small network.

python tests/golden/make_referees.py      (from the root, in the environment of tests/referees)
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pseudolabel.contracts.networks import random_images
from tests.referees.cases import cases
from tests.referees.scenes import scene

FILE = Path(__file__).with_name("referees.npz")
PIXELS = (15, 19)


def main() -> None:
    from tests.referees.libraries import asked

    warnings.simplefilter("ignore")
    images, answers = random_images(2, *PIXELS), {}
    for case in cases(("small",)):
        answers[str(case)] = np.stack(asked(case, scene(case.scene, images), images)).astype(np.float32)
    libraries = [f"{name} {version(name)}" for name in ("captum", "torchcam", "grad-cam", "torch")]
    np.savez_compressed(FILE, libraries=np.array(libraries), **answers)
    print(f"{FILE.name}: {len(answers)} answers, {FILE.stat().st_size / 1000:.0f} kB, {', '.join(libraries)}")


if __name__ == "__main__":
    main()
