"""Dense CRF by pydensecrf2: pixels that are near and of like colour want one label.

    E(x) = sum_i U_i(x_i) + sum_ij [x_i != x_j] (w_p k_p(i, j) + w_c k_c(i, j))
    k_p = exp(-|p_i - p_j|^2 / 2 position_xy^2)
    k_c = exp(-|p_i - p_j|^2 / 2 colour_xy^2 - |I_i - I_j|^2 / 2 colour_rgb^2)

Mean field, kernels normalised symmetrically, filtered on the permutohedral lattice (an approximation: 1.5
to 4.5 % of the labels differ from the exact formula, which `crf_exact` computes). The unary is -log of the
label's confidence (what remains is shared by the other labels), or of the scores, clipped to at least 1e-5.
Scores must then be as good as probabilities (`power` gives such): beside a constant background a class score
of 0 costs far more than a background that is a little too high, and the background floods the image.

Source: Krahenbuhl and Koltun 2011 (arXiv 1210.5644). Presets: irn (jiwoon-ahn/irn, seed refinement), psa
(jiwoon-ahn/psa, `crf_inference`), deeplab (kazuto1011/deeplab-pytorch).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudolabel.errors import MachineError
from pseudolabel.postprocessors._dense_crf import DenseCrf, Preset
from pseudolabel.records import LabelScores
from pseudolabel.registry import UNIT, component


class Crf(DenseCrf):
    """A preset, and what is to differ from it."""


@component(Crf, takes=UNIT, gives=UNIT, device="cpu", packages=("pydensecrf",), agreement=0.96)
def crf(label_scores: LabelScores, image: Tensor, params: Crf) -> LabelScores:
    """What each pixel is after the CRF, over background and the classes present.

    Args:
        label_scores: values (K+1, H, W) float32 in [0, 1]; a pixel that is not kept starts unsure of
            everything.
        image: (H, W, 3) uint8 RGB as shown.
        params: see `Crf`.

    Returns:
        LabelScores of (K+1, H, W) float32 probabilities, rows and kept pixels as they were.

    Raises:
        MachineError: pydensecrf2 is not installed.
    """
    densecrf = _library()
    chosen = params.settings()
    rows, height, width = label_scores.values.shape
    field = densecrf.DenseCRF2D(width, height, rows)
    field.setUnaryEnergy(_unary(label_scores, chosen))
    # a scalar compat is Potts; a vector of the same weight would make equal labels repel each other
    field.addPairwiseGaussian(sxy=chosen.position_xy, compat=chosen.position_weight)
    pixels = np.ascontiguousarray(image.cpu().numpy())
    field.addPairwiseBilateral(
        sxy=chosen.colour_xy, srgb=chosen.colour_rgb, rgbim=pixels, compat=chosen.colour_weight
    )
    marginals = np.array(field.inference(chosen.iterations), np.float32).reshape(rows, height, width)
    return LabelScores(
        label_scores.ids, torch.from_numpy(marginals).to(label_scores.values.device), label_scores.keep
    )


def _unary(label_scores: LabelScores, chosen: Preset) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(K+1, H * W) energies, by the library's own functions so that every bit is theirs."""
    from pydensecrf.utils import unary_from_labels, unary_from_softmax

    rows = len(label_scores.ids)
    if chosen.unary == "scores":
        energy = unary_from_softmax(label_scores.values.cpu().numpy())
    else:
        labels = label_scores.rows().cpu().numpy()
        energy = unary_from_labels(labels, rows, gt_prob=chosen.confidence, zero_unsure=False)
    energy[:, ~label_scores.keep.cpu().numpy().ravel()] = np.log(rows)
    return np.ascontiguousarray(energy)


def _library() -> Any:
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise MachineError(
            "postprocess: 'crf' needs pydensecrf2, which is not installed; `pip install pseudolabel[crf]` "
            "(it needs a C++ compiler), take {name: crf_exact, long_side: 120}, which needs no package, "
            "or leave crf out of `postprocess`"
        ) from error
    return densecrf
