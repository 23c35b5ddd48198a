"""A training that kills itself at a planned moment; started by test_engine.py.

    python killed.py pl|seg RECIPE.json OUT MOMENT NUMBER

`step`: before the step of this number, counted from 1. `moves`: in the save of this number, after the old
state was moved aside and before the new one takes its place. A state is saved after every step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import pseudolabel
import segtrain
from pseudolabel.training import engine, state


def main(trainer: str, recipe: Path, out: Path, moment: str, number: int) -> None:
    torch.set_num_threads(1)
    engine.BETWEEN_SAVES = -1.0
    plant(moment, number)
    train = {"pl": pseudolabel.train, "seg": segtrain.train}[trainer]
    train(json.loads(recipe.read_text()), out, device="cpu", workers=1, quiet=True)


def plant(moment: str, number: int) -> None:
    left = number
    genuine_step, genuine_replace = engine.Learner.step, os.replace

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def step(*args: Any, **options: Any) -> Any:
        count()
        return genuine_step(*args, **options)

    def replace(source: Any, target: Any) -> None:
        if Path(source).name == "next.safetensors" and Path(target).name == "last.safetensors":
            count()
        genuine_replace(source, target)

    if moment == "step":
        engine.Learner.step = step  # type: ignore[method-assign]
    else:
        state.os.replace = replace  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
