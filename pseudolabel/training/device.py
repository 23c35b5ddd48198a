"""Where a training runs: the device by name, and Lightning Fabric for precision and ranks.

`torchrun` and Slurm start one process a device; Fabric finds them by their environment. Without a launcher
it is one process on one device.
"""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING

from pseudolabel.errors import MachineError, UsageError
from pseudolabel.training.allocator import keep_pages

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed", "float16": "16-mixed"}


def pick(name: str = "auto") -> torch.device:
    """The device of a name: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:n`.

    Raises:
        UsageError: not such a name.
        MachineError: the device is absent; those present are listed.
    """
    import torch

    present = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name == "auto":
        return torch.device(present[1] if len(present) > 1 else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()) or (kind == "cpu" and index):
        raise UsageError(f"--device {name}: not a device; choose auto, cpu, cuda or cuda:n")
    wanted = "cpu" if kind == "cpu" else f"cuda:{index or 0}"
    if wanted not in present:
        raise MachineError(f"--device {name}: not on this machine; present are {', '.join(present)}")
    return torch.device(wanted)


def place(name: str) -> torch.device:
    """The device of a name, and a C library that suits work on it.

    Raises:
        UsageError, MachineError: see `pick`.
    """
    device = pick(name)
    if device.type == "cpu":
        keep_pages()
    return device


def launch(name: str, precision: str) -> Fabric:
    """A Fabric on its device and, under a launcher, joined with the other ranks.

    Args:
        name: auto, cpu, cuda or cuda:n; under a launcher only its kind counts.
        precision: float32, bf16 or float16.

    Raises:
        UsageError: not such a device.
        MachineError: the device is absent, or cannot do this precision.
    """
    import torch

    device = place(name)
    if precision == "float16" and device.type != "cuda":
        raise MachineError("precision: float16 needs a GPU to be of use; take bf16 or float32")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise MachineError(f"precision: {device} has no bf16; take float16 or float32")
    for logger in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    from lightning_fabric import Fabric

    local, nodes = _launched()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Fabric's advice on devices that were left out on purpose
        fabric = Fabric(
            accelerator=device.type,
            devices=local if local * nodes > 1 or device.type == "cpu" else [device.index or 0],
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
