"""Steps and trainings on two ranks; started by `torchrun` from test_ranks.py.

    step OUT LOSS     one step with a loss, the second rank without a labelled pixel
    few OUT LOSS      one step with a loss, the second rank without a pair

Batch norm stays in evaluation mode, so that the step must equal one on the whole batch.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pseudolabel import registry
from pseudolabel.training.device import launch
from pseudolabel.training.engine import Learner
from pseudolabel.training.state import save_state
from segtrain.learning import SegmentationTask, learner_of
from segtrain.loss import Loss
from segtrain.networks import Architecture, SegmentationNetwork
from segtrain.recipe import SegRecipe

PLAIN = {
    "data": {"reader": "voc", "root": "nowhere"},
    "network": {"encoder": "tu-test_efficientnet", "weights": "none"},
    "optimizer": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0, "clip": 0.5},
    "schedule": {"epochs": 1, "batch": 4},
}


def a_step(case: str, rank: int | None, name: str) -> Learner:
    """One step of a learner on its rank's share of the pairs; None takes all of them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    architecture = Architecture("deeplabv3plus", "tu-test_efficientnet", 16, (0.5,) * 3, (0.25,) * 3)
    network = SegmentationNetwork(architecture, 3)
    learner = learner_of(launch("cpu", "float32"), network, SegRecipe.model_validate(PLAIN))
    network.eval()
    source = np.random.default_rng(1)
    images = source.integers(0, 256, (4, 32, 32, 3), np.uint8)
    labels = source.integers(0, 3, (4, 32, 32)).astype(np.uint8)
    labels[1::2] = 255  # the images of the second rank
    pairs = list(zip(images, labels, strict=True))[: 4 if case == "step" else 1]
    data: Any = type("Data", (), {"pairs": ()})
    component = registry.get("losses", name)
    loss = Loss(component, component.params())
    work = SegmentationTask(data, network, loss, 0, torch.device("cpu")).work()
    share = slice(None) if rank is None else slice(rank, None, 2)
    result = learner.step(work, pairs[share], number=0, total=2)
    assert result.outcome == "done"
    network.register_buffer("told", torch.tensor([result.loss, result.norm]))
    return learner


if __name__ == "__main__":
    rank = os.environ["RANK"]
    actual = a_step(sys.argv[1], int(rank), sys.argv[3]).modules["network"].state_dict()
    tensors = {name: value for name, value in actual.items() if value.is_floating_point()}
    save_state(Path(sys.argv[2]) / f"rank{rank}.safetensors", tensors, {})
