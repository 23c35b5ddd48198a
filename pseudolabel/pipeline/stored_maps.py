"""Stored raw maps of one image: `ids` (K,) and one tensor (K, H, W) a branch, in one safetensors file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pseudolabel.errors import DataError
from pseudolabel.records import Scores


def encode_maps(labels: Sequence[int], maps: Sequence[Scores]) -> bytes:
    """The bytes of the file.

    Args:
        labels: (K,) class ids.
        maps: of each branch (K, H, W) float32.
    """
    from safetensors.torch import save

    tensors = {"ids": torch.tensor(labels, dtype=torch.int64)}
    tensors |= {tensor_name(index): scores.values.contiguous() for index, scores in enumerate(maps)}
    return bytes(save(tensors))


def read_maps(path: Path) -> list[Scores]:
    """Stored raw maps of one image.

    Returns:
        For each branch Scores (K, H, W) float32 on the CPU; K = 0 for an image without a class.

    Raises:
        DataError: the file is damaged or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        ids = tuple(tensors.pop("ids").tolist())
        return [Scores(ids, tensors[tensor_name(index)].float()) for index in range(len(tensors) or 1)]
    except (SafetensorError, KeyError, OSError) as error:
        raise DataError(f"{path}: cannot be read as stored maps ({error}); make the maps again") from error


def tensor_name(branch: int) -> str:
    """The tensor of a branch: scores, scores_1, scores_2, ..."""
    return "scores" if branch == 0 else f"scores_{branch}"
