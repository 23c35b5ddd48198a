"""255 where a file of the image says so.

    keep(p) = byte p of the file is 0

Source: made for a test.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pseudolabel.records import LabelScores
from pseudolabel.registry import SAME, Need, Parameters, component, parameter


class Painted(Parameters):
    """Where the files are."""

    folder: str = parameter(help="folder of <id>.bin, a byte a pixel")


@component(
    Painted,
    kind="postprocessors",
    takes=SAME,
    gives=SAME,
    needs={"paint": Need("file", "folder", ".bin")},
    oracles="tests.third_party.needy_components.oracles",
)
def painted(label_scores: LabelScores, image: Tensor, params: Painted, paint: bytes) -> LabelScores:
    """The same label scores, fewer pixels kept."""
    clear = torch.frombuffer(bytearray(paint), dtype=torch.uint8).reshape(label_scores.keep.shape) == 0
    return LabelScores(label_scores.ids, label_scores.values.clone(), label_scores.keep & clear)
