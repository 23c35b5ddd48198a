"""Checkpoints of a training: whole files by our writer, compared before a tensor is copied.

    RUN/checkpoints/last.safetensors      network, optimizer and position: continues to the same bits
    RUN/checkpoints/previous.safetensors  the one before, should `last` be damaged
    RUN/checkpoints/best.safetensors      network alone, highest validation mIoU so far

Each holds class names in order, architecture with its normalisation, format version and recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import console
from pseudolabel.errors import DataError
from pseudolabel.records import LabelSpace
from pseudolabel.runs import disk
from pseudolabel.training.state import NEWEST_FIRST, file_of, load_state, save_state

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pseudolabel.training.engine import Learner
    from pseudolabel.training.position import Position
    from segtrain.networks import Architecture, SegmentationNetwork

FORMAT = 1
KIND = "segmentation"
NETWORK = "network."  # prefix of the network's tensors
FOLDER = "checkpoints"


@dataclass(frozen=True)
class Header:
    """What every checkpoint says of itself.

    Attributes:
        space: class names in order.
        architecture: decides the tensors.
        recipe: the recipe it was trained by, as plain data.
        epoch: finished epochs.
    """

    space: LabelSpace
    architecture: Architecture
    recipe: Mapping[str, Any]
    epoch: int

    def plain(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": KIND,
            "classes": list(self.space.names),
            "architecture": asdict(self.architecture),
            "recipe": dict(self.recipe),
            "recipe_digest": disk.digest(self.recipe),
            "epoch": self.epoch,
        }


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in evaluation mode, and what its checkpoint says."""

    network: SegmentationNetwork
    header: Header
    sha256: str


def save_best(folder: Path, network: SegmentationNetwork, header: Header) -> None:
    """Write `best`: the network without the optimizer."""
    save_state(file_of(folder / FOLDER, "best"), _named(network), header.plain())


def save_last(run: Path, learner: Learner, position: Position, header: Header) -> None:
    """Write a new `last` that the training can go on from; the old one becomes `previous`."""
    learner.save(run / FOLDER, position, header.plain())


def restore(run: Path, learner: Learner, header: Header) -> Position | None:
    """Put a training back to where its newest readable checkpoint left it.

    Returns:
        The position, or None where there is nothing to continue from.

    Raises:
        DataError: the checkpoint is of another network, or none can be read.
    """

    def check(file: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        compare(file, _header(file, meta), header.space, header.architecture)
        _check_tensors(file, learner.modules["network"], tensors)

    return learner.load(run / FOLDER, check, console.say)


def locate(run: Path, which: str = "last") -> Path:
    """The checkpoint file of a run folder, or the file itself.

    Raises:
        DataError: there is none.
    """
    if run.is_file():
        return run
    path = file_of(run / FOLDER, which)
    if which == "last":  # a kill while it was saved leaves the others
        there = (file_of(run / FOLDER, name) for name in NEWEST_FIRST)
        path = next((file for file in there if file.exists()), path)
    if not path.exists():
        raise DataError(f"{path}: no such checkpoint; give the folder of a `seg train` run that has one")
    return path


def load_network(run: Path, which: str = "last", space: LabelSpace | None = None) -> LoadedNetwork:
    """A trained network, ready to predict.

    Args:
        run: a run folder or a checkpoint file.
        which: last, best or previous, in a run folder.
        space: the classes that it must have, if any.

    Raises:
        DataError: missing, damaged, newer than this program, or of other classes.
    """
    import torch

    from segtrain.networks import SegmentationNetwork

    path = locate(run, which)
    tensors, meta = load_state(path)
    header = _header(path, meta)
    compare(path, header, space or header.space, header.architecture)
    network = SegmentationNetwork(header.architecture, len(header.space.names))
    network.load_state_dict(_check_tensors(path, network, tensors), strict=True)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return LoadedNetwork(network.eval(), header, disk.sha256_file(path))


def compare(path: Path, header: Header, space: LabelSpace, architecture: Architecture) -> None:
    """Refuse a checkpoint of other classes or another network, before anything is loaded.

    Raises:
        DataError: both lists and the first difference.
    """
    if header.space != space:
        raise DataError(
            f"{path}: classes are {_listed(header.space.names)}, wanted {_listed(space.names)}; "
            f"{_first_difference(header.space.names, space.names)}; train a network for these classes"
        )
    if header.architecture != architecture:
        before, after = asdict(header.architecture), asdict(architecture)
        changes = [
            f"{key} {before[key]!r}, wanted {after[key]!r}" for key in before if before[key] != after[key]
        ]
        raise DataError(f"{path}: another network: {'; '.join(changes)}; use the recipe it was trained by")


def _header(path: Path, meta: Mapping[str, Any]) -> Header:
    from segtrain.networks import Architecture

    if meta.get("kind") != KIND:
        raise DataError(
            f"{path}: holds a {meta.get('kind', 'foreign file')!r}, not a segmentation network; "
            "give a run of `seg train`"
        )
    if meta.get("format") != FORMAT:
        raise DataError(f"{path}: format {meta.get('format')}, this program reads {FORMAT}; update it")
    try:
        plain = dict(meta["architecture"])
        plain["mean"], plain["std"] = tuple(plain["mean"]), tuple(plain["std"])
        space = LabelSpace(tuple(meta["classes"]))
        return Header(space, Architecture(**plain), meta["recipe"], int(meta["epoch"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a readable checkpoint ({error}); use another one") from error


def _named(network: SegmentationNetwork) -> dict[str, Tensor]:
    return {NETWORK + name: value for name, value in network.state_dict().items()}


def _check_tensors(path: Path, network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors in a file by their own names, after all names, shapes and types were compared."""
    own = network.state_dict()
    stored = {name[len(NETWORK) :]: value for name, value in tensors.items() if name.startswith(NETWORK)}
    missing, strange = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    if missing or strange:
        first = f"lacks {missing[0]!r}" if missing else f"has {strange[0]!r} too many"
        raise DataError(
            f"{path}: {len(stored)} tensors, wanted {len(own)}; {first}; use the checkpoint as it was written"
        )
    for name, value in stored.items():
        if value.shape != own[name].shape or value.dtype != own[name].dtype:
            raise DataError(
                f"{path}: {name!r} is {tuple(value.shape)} {value.dtype}, wanted {tuple(own[name].shape)} "
                f"{own[name].dtype}; use the checkpoint as it was written"
            )
    return stored


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:30])}{', ...' if len(names) > 30 else ''})"


def _first_difference(names: Sequence[str], wanted: Sequence[str]) -> str:
    for index, (name, other) in enumerate(zip(names, wanted, strict=False)):
        if name != other:
            return f"first difference: id {index} is {name!r}, wanted {other!r}"
    return f"first difference: id {min(len(names), len(wanted))} stands in one list only"
