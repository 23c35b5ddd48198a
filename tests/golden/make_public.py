"""Make `public.npz`: CAM by torchcam, saliency and crops by captum, on a ResNet18, a ViT and a sequence.

python tests/golden/make_public.py      (from the root, in the environment of tests/referees)
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tests.referees.public_scenes import cases

FILE = Path(__file__).with_name("public.npz")


def main() -> None:
    from tests.referees.public_libraries import asked

    warnings.simplefilter("ignore")
    answers = {f"{name}, {what}": asked(name, what).astype(np.float32) for name, what in cases()}
    libraries = [f"{name} {version(name)}" for name in ("captum", "torchcam", "torch", "torchvision", "timm")]
    np.savez_compressed(FILE, libraries=np.array(libraries), **answers)
    print(f"{FILE.name}: {len(answers)} answers, {FILE.stat().st_size / 1000:.0f} kB, {', '.join(libraries)}")


if __name__ == "__main__":
    main()
