"""Training state in safetensors files: tensors by name, everything else as JSON in the header.

    FOLDER/last.safetensors      the newest state: a training goes on from it to the same bits
    FOLDER/previous.safetensors  the state before it, should `last` be damaged
    FOLDER/next.safetensors      only while a state is saved

A new state is written whole as `next` before anything moves; then `last` becomes `previous`, and `next`
becomes `last`. A kill at any moment leaves a state that is whole: between the two moves it is `next`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.errors import DataError, NumericError
from pseudolabel.runs import disk, fault_plan

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NEWEST_FIRST = ("last", "next", "previous")  # `next` is looked at only where there is no readable `last`


def file_of(folder: Path, name: str) -> Path:
    """Where a state of a name stands."""
    return folder / f"{name}.safetensors"


def save_last(folder: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write the newest state of a folder; the one before it is kept as `previous`.

    Raises:
        NumericError: a tensor is not finite; all files stay as they were.
        MachineError: a file cannot be written or moved.
    """
    fresh, last, before = (file_of(folder, name) for name in ("next", "last", "previous"))
    save_state(fresh, tensors, meta)
    try:
        if last.exists():
            fault_plan.trip("write", before)
            os.replace(last, before)
        fault_plan.trip("write", last)
        os.replace(fresh, last)
        disk.sync_folder(folder)
    except OSError as error:
        raise disk.machine_error(last, error) from error


def load_last(
    folder: Path, say: Callable[[str], None]
) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """The newest state of a folder that can be read: its file, tensors on the CPU, and metadata.

    Args:
        folder: see the module.
        say: gets a line for each state that is damaged.

    Returns:
        None where there is no state at all.

    Raises:
        DataError: there are states, and none of them can be read.
    """
    damaged: DataError | None = None
    for name in NEWEST_FIRST:
        file = file_of(folder, name)
        if not file.is_file():
            continue
        try:
            return file, *load_state(file)
        except DataError as fault:
            damaged = fault
            say(f"{fault}; going on from the state before it")
    if damaged is not None:
        raise DataError(f"{damaged}; no other state can be read, start again with --overwrite")
    return None


def save_state(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and metadata as one whole file.

    Raises:
        NumericError: a tensor is not finite; the file already there is untouched.
        MachineError: the file cannot be written.
    """
    import torch
    from safetensors.torch import save

    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NumericError(f"{path.name}: tensor {name!r} is not finite; the last good file stays")
    # clone: safetensors refuses tensors that share memory, and wants contiguous ones
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(meta, sort_keys=True, allow_nan=False)
    disk.write_bytes(path, save(own, metadata={"meta": text}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote, on the CPU.

    Raises:
        DataError: missing, damaged or not such a file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(json.loads(header["meta"]))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give the folder of a run or its checkpoint") from None
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a readable checkpoint ({cause}); use another one") from error


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors named `<parameter>.<slot>` and plain values."""
    import torch

    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{slot}"] = value
            else:
                plain.setdefault(str(index), {})[slot] = value
    return tensors, {"plain": plain, "groups": state["param_groups"]}


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> None:
    """Put back what `pack_optimizer` gave."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, _, slot = name.partition(".")
        state.setdefault(int(index), {})[slot] = tensor
    for index, slots in meta["plain"].items():
        state.setdefault(int(index), {}).update(slots)
    optimizer.load_state_dict({"state": state, "param_groups": meta["groups"]})
