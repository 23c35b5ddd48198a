"""Settings of a dense CRF, shared by the lattice (`crf`) and the exact form (`crf_exact`).

Presets: irn (jiwoon-ahn/irn, seed refinement), psa (jiwoon-ahn/psa, `crf_inference`), deeplab
(kazuto1011/deeplab-pytorch).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from pseudolabel.registry import Parameters, parameter


@dataclass(frozen=True)
class Preset:
    """Published settings; lengths in pixels, colours in steps of 0..255."""

    unary: str
    position_xy: float
    position_weight: float
    colour_xy: float
    colour_rgb: float
    colour_weight: float
    iterations: int = 10
    confidence: float = 0.7


PRESETS = {
    "irn": Preset("labels", 3, 3, 50, 5, 10),
    "psa": Preset("scores", 3, 3, 80, 13, 10),
    "deeplab": Preset("scores", 1, 3, 67, 3, 4),
}


class DenseCrf(Parameters):
    """A preset, and what is to differ from it."""

    preset: Literal["irn", "psa", "deeplab"] = parameter("irn", help="whose settings")
    unary: Literal["labels", "scores"] | None = parameter(
        None, help="start from the mask, or from the values of the label scores; null takes the preset's"
    )
    confidence: float | None = parameter(
        None, gt=0, lt=1, unit="probability", help="of a label, where the unary comes from labels"
    )
    iterations: int | None = parameter(None, ge=1, unit="mean field updates", help="how many")
    position_xy: float | None = parameter(
        None, gt=0, unit="pixels of the original image", help="reach of the kernel blind to colour"
    )
    position_weight: float | None = parameter(None, ge=0, help="of the kernel blind to colour")
    colour_xy: float | None = parameter(
        None, gt=0, unit="pixels of the original image", help="reach of the kernel that sees colour"
    )
    colour_rgb: float | None = parameter(None, gt=0, unit="steps of 0..255", help="its reach in colour")
    colour_weight: float | None = parameter(None, ge=0, help="of the kernel that sees colour")

    def settings(self) -> Preset:
        """The preset with what was said to differ."""
        said = {field.name: getattr(self, field.name) for field in fields(Preset)}
        said = {key: value for key, value in said.items() if value is not None}
        return Preset(**{**vars(PRESETS[self.preset]), **said})
