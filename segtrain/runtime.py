"""Where a training runs: Lightning Fabric for the device, the precision and the launcher.

`torchrun` and Slurm start one process a device; Fabric finds them by their environment. Without a launcher
it is one process on one device.
"""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING

from pseudolabel.errors import MachineError
from pseudolabel.training import device as devices
from pseudolabel.training.allocator import keep_pages

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed", "float16": "16-mixed"}


def place(device: str) -> torch.device:
    """The device of a name, and a C library that suits work on it.

    Raises:
        UsageError, MachineError: see `pseudolabel.training.device.pick`.
    """
    found = devices.pick(device)
    if found.type == "cpu":
        keep_pages()
    return found


def launch(device: str, precision: str) -> Fabric:
    """A Fabric that has found its device and, under a launcher, the other ranks.

    Args:
        device: auto, cpu, cuda or cuda:n; under a launcher only its kind counts.
        precision: float32, bf16 or float16.

    Raises:
        MachineError: the device is absent, or cannot do this precision.
    """
    import torch

    where = place(device)
    if precision == "float16" and where.type != "cuda":
        raise MachineError("precision: float16 needs a GPU to be of use; take bf16 or float32")
    if precision == "bf16" and where.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise MachineError(f"precision: {where} has no bf16; take float16 or float32")
    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from lightning_fabric import Fabric

    local, nodes = _launched()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Fabric's advice on devices that were left out on purpose
        fabric = Fabric(
            accelerator=where.type,
            devices=local if local * nodes > 1 or where.type == "cpu" else [where.index or 0],
            num_nodes=nodes,
            strategy="ddp" if local * nodes > 1 else "auto",
            precision=PRECISIONS[precision],  # type: ignore[arg-type]
        )
        fabric.launch()
    return fabric


def _launched() -> tuple[int, int]:
    """Processes a node and nodes, as the launcher says."""
    for local, world in (("LOCAL_WORLD_SIZE", "WORLD_SIZE"), ("SLURM_NTASKS_PER_NODE", "SLURM_NTASKS")):
        if local in os.environ and world in os.environ:
            each = int(os.environ[local])
            return each, max(1, int(os.environ[world]) // each)
    return 1, 1
