"""Which device a run uses: asked for by name it is there, or the run does not start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pseudolabel.errors import MachineError, UsageError

if TYPE_CHECKING:
    import torch


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
