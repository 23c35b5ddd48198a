"""Stored raw maps of one image: a safetensors file with `ids` and a tensor (K, H, W) for each branch.

The tensors of the branches are named `scores`, `scores_1`, `scores_2`, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pseudolabel.errors import DataError

if TYPE_CHECKING:
    from pseudolabel.records import Scores


def encode_maps(labels: Sequence[int], maps: Sequence[Scores]) -> bytes:
    """The file of an image's maps.

    Args:
        labels: (K,) ascending class ids, the same of every branch.
        maps: for each branch Scores (K, H, W) float32 on the CPU.
    """
    import torch
    from safetensors.torch import save

    tensors = {"ids": torch.tensor(labels, dtype=torch.int64)}
    tensors |= {_name(index): scores.values.contiguous() for index, scores in enumerate(maps)}
    return save(tensors)


def read_maps(path: Path) -> list[Scores]:
    """Stored raw maps of one image.

    Returns:
        For each branch Scores (K, H, W) float32 on the CPU; K = 0 for an image without a class.

    Raises:
        DataError: the file is missing, damaged or holds something else.
    """
    try:
        return decode_maps(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read as stored maps ({error}); make the maps again") from error


def decode_maps(data: bytes, path: Path) -> list[Scores]:
    """As `read_maps`, of bytes that were read already; `path` names them in messages."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from pseudolabel.records import Scores

    try:
        tensors = load(data)
        ids = tuple(tensors.pop("ids").tolist())
        return [Scores(ids, tensors[_name(index)].float()) for index in range(len(tensors) or 1)]
    except (SafetensorError, KeyError) as error:
        raise DataError(f"{path}: cannot be read as stored maps ({error}); make the maps again") from error


def _name(branch: int) -> str:
    return "scores" if branch == 0 else f"scores_{branch}"
