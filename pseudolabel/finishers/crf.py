"""Dense CRF by pydensecrf2: pixels that are near and of like colour want one label.

    E(x) = sum_i U_i(x_i) + sum_ij [x_i != x_j] (w_p k_p(i, j) + w_c k_c(i, j))
    k_p = exp(-|p_i - p_j|^2 / 2 position_xy^2)
    k_c = exp(-|p_i - p_j|^2 / 2 colour_xy^2 - |I_i - I_j|^2 / 2 colour_rgb^2)

Mean field, kernels normalised symmetrically, filtered on the permutohedral lattice (an approximation: 1.5
to 4.5 % of the labels differ from the exact formula). The unary is -log of the label's confidence (what
remains is shared by the other labels), or of the scores, clipped to at least 1e-5.

Source: Krahenbuhl and Koltun 2011 (arXiv 1210.5644). Presets: irn (jiwoon-ahn/irn, seed refinement), psa
(jiwoon-ahn/psa, `crf_inference`), deeplab (kazuto1011/deeplab-pytorch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pseudolabel.errors import EnvironmentFault
from pseudolabel.records import Belief
from pseudolabel.registry import UNIT, Parameters, brick, parameter


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


class Crf(Parameters):
    """A preset, and what is to differ from it."""

    preset: Literal["irn", "psa", "deeplab"] = parameter("irn", help="whose settings")
    unary: Literal["labels", "scores"] | None = parameter(
        None, help="start from the mask, or from the values of the belief; null takes the preset's"
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
        said = {key: value for key, value in self.as_dict().items() if key != "preset" and value is not None}
        return Preset(**{**vars(PRESETS[self.preset]), **said})


@brick(Crf, takes=UNIT, gives=UNIT, device="cpu", needs=("pydensecrf",))
def crf(belief: Belief, image: Tensor, params: Crf) -> Belief:
    """What each pixel is after the CRF, over background and the classes present.

    Args:
        belief: values (K+1, H, W) float32 in [0, 1]; a pixel that is not kept starts unsure of everything.
        image: (H, W, 3) uint8 RGB as shown.
        params: see `Crf`.

    Returns:
        Belief of (K+1, H, W) float32 probabilities, rows and kept pixels as they were.

    Raises:
        EnvironmentFault: pydensecrf2 is not installed.
    """
    densecrf = _library()
    chosen = params.settings()
    rows, height, width = belief.values.shape
    field = densecrf.DenseCRF2D(width, height, rows)
    field.setUnaryEnergy(_unary(belief, chosen))
    # a scalar compat is Potts; a vector of the same weight would make equal labels repel each other
    field.addPairwiseGaussian(sxy=chosen.position_xy, compat=chosen.position_weight)
    pixels = np.ascontiguousarray(image.cpu().numpy())
    field.addPairwiseBilateral(
        sxy=chosen.colour_xy, srgb=chosen.colour_rgb, rgbim=pixels, compat=chosen.colour_weight
    )
    found = np.array(field.inference(chosen.iterations), np.float32).reshape(rows, height, width)
    return Belief(belief.ids, torch.from_numpy(found).to(belief.values.device), belief.keep)


def _unary(belief: Belief, chosen: Preset) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(K+1, H * W) energies."""
    from pydensecrf.utils import unary_from_labels, unary_from_softmax

    rows = len(belief.ids)
    if chosen.unary == "scores":
        energy = unary_from_softmax(belief.values.cpu().numpy())
    else:
        labels = belief.rows().cpu().numpy()
        energy = unary_from_labels(labels, rows, gt_prob=chosen.confidence, zero_unsure=False)
    energy[:, ~belief.keep.cpu().numpy().ravel()] = np.log(rows)
    return np.ascontiguousarray(energy)


def _library() -> Any:
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise EnvironmentFault(
            "finish: 'crf' needs pydensecrf2, which is not installed; `pip install pseudolabel[crf]` "
            "(it needs a C++ compiler), or leave crf out of `finish`"
        ) from error
    return densecrf
