"""One step on two ranks, the second without a labelled pixel; started by `torchrun` from test_ranks.py.

Batch norm stays in evaluation mode, so that the step must equal one on the whole batch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from pseudolabel import registry
from pseudolabel.training.checkpoint import save_state
from segtrain.loop import Learner, Plan
from segtrain.loss import Loss
from segtrain.networks import Architecture, SegmentationNetwork
from segtrain.runtime import launch


def a_step(rank: int | None, name: str) -> Learner:
    """One step of a learner with a loss on its rank's share of four images; None takes all of them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = SegmentationNetwork(
        Architecture("deeplabv3plus", "tu-test_efficientnet", 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), 3
    )
    optimizer = torch.optim.SGD(network.groups(0.01, 10), momentum=0.9)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    fabric = launch("cpu", "float32")
    module, wrapped = fabric.setup(network, optimizer)
    module.eval()
    component = registry.get("losses", name)
    loss = Loss(component, component.params())
    learner = Learner(fabric, network, module, wrapped, loss, Plan(seed=0, epochs=1, batch=4, clip=0.5))
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (4, 32, 32), generator=generator, dtype=torch.uint8)
    labels[1::2] = 255  # the images of the second rank
    share = slice(None) if rank is None else slice(rank, None, 2)
    value, norm, outcome = learner.step(images[share], labels[share], number=0, total=2)
    assert outcome == "done"
    learner.network.register_buffer("told", torch.tensor([value, norm]))
    return learner


if __name__ == "__main__":
    import os

    found = a_step(int(os.environ["RANK"]), sys.argv[2])
    tensors = {name: value for name, value in found.network.state_dict().items() if value.is_floating_point()}
    save_state(Path(sys.argv[1]) / f"rank{os.environ['RANK']}.safetensors", tensors, {})
