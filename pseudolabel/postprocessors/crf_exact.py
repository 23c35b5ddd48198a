"""Dense CRF with the exact kernels: what `crf` approximates on a lattice; needs no package and wants a GPU.

    E(x) = sum_i U_i(x_i) + sum_ij [x_i != x_j] (w_p k_p(i, j) + w_c k_c(i, j))
    k_p = exp(-|p_i - p_j|^2 / 2 position_xy^2)
    k_c = exp(-|p_i - p_j|^2 / 2 colour_xy^2 - |I_i - I_j|^2 / 2 colour_rgb^2)

Mean field, kernels normalised symmetrically, a pixel's message to itself included, as pydensecrf2 means it.
Its cost grows with the square of the pixels (N^2 exponentials an update, 11 times for 10 updates): about
1e9 a second on two cores, some 1e12 on a GPU, hardly more for many labels than for two. `long_side` runs
it on a smaller image: confidences and colours are averaged down, reaches shrink along, probabilities come
back bilinearly. The unary is that of `crf`.

Source: Krahenbuhl and Koltun 2011 (arXiv 1210.5644); kernels as attention: own derivation. Presets: irn
(jiwoon-ahn/irn, seed refinement), psa (jiwoon-ahn/psa, `crf_inference`), deeplab
(kazuto1011/deeplab-pytorch).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from pseudolabel.errors import MachineError
from pseudolabel.postprocessors._dense_crf import DenseCrf, Preset
from pseudolabel.postprocessors._exact_crf import mean_field
from pseudolabel.records import LabelScores
from pseudolabel.registry import UNIT, component, parameter

LEAST = 1e-5  # probability that a score is clipped to, as pydensecrf does it


class CrfExact(DenseCrf):
    """A preset, what is to differ from it, and how many pixels are too many."""

    long_side: int | None = parameter(
        None, ge=1, unit="pixels", help="run on an image whose longer side is this; null runs at full size"
    )
    pixels_on_cpu: int = parameter(
        12_000, ge=1, unit="pixels", help="more are refused on a CPU, where 12,000 take two seconds"
    )


@component(CrfExact, takes=UNIT, gives=UNIT, flips=True)
def crf_exact(label_scores: LabelScores, image: Tensor, params: CrfExact) -> LabelScores:
    """What each pixel is after the CRF, over background and the classes present.

    Args:
        label_scores: values (K+1, H, W) float32 in [0, 1]; a pixel that is not kept starts unsure of
            everything.
        image: (H, W, 3) uint8 RGB as shown.
        params: see `CrfExact`.

    Returns:
        LabelScores of (K+1, H, W) float32 probabilities, rows and kept pixels as they were.

    Raises:
        MachineError: more pixels than `pixels_on_cpu`, on a CPU.
    """
    height, width = label_scores.values.shape[1:]
    chosen = params.settings()
    longer = max(height, width)
    share = 1.0 if params.long_side is None else min(1.0, params.long_side / longer)
    small = max(1, round(height * share)), max(1, round(width * share))
    if label_scores.values.device.type == "cpu" and small[0] * small[1] > params.pixels_on_cpu:
        fits = int(longer * (params.pixels_on_cpu / (height * width)) ** 0.5)
        raise MachineError(
            f"postprocess: 'crf_exact' at {small[0]} x {small[1]} has {small[0] * small[1]} pixels, above "
            f"pixels_on_cpu {params.pixels_on_cpu}; take {{name: crf}}, long_side: {max(1, fits)}, a GPU, or "
            "raise pixels_on_cpu (time grows with the square)"
        )
    start, pixel_values = _start(label_scores, chosen), image.to(label_scores.values.device, torch.float32)
    if share < 1:
        start = _resized(start, small, antialias=True)
        pixel_values = _resized(pixel_values.permute(2, 0, 1), small, antialias=True).permute(1, 2, 0)
        chosen = replace(chosen, position_xy=chosen.position_xy * share, colour_xy=chosen.colour_xy * share)
    marginals = mean_field(-start.log(), pixel_values, chosen)
    if share < 1:
        marginals = _resized(marginals, (height, width), antialias=False)
    return LabelScores(label_scores.ids, marginals, label_scores.keep)


def _start(label_scores: LabelScores, chosen: Preset) -> Tensor:
    """(K+1, H, W) float32, the confidence in every label before the first update, at least `LEAST`."""
    rows = len(label_scores.ids)
    if chosen.unary == "scores":
        start = label_scores.values.clamp(LEAST, 1)
    else:
        others = (1 - chosen.confidence) / max(1, rows - 1)
        start = torch.full_like(label_scores.values, others)
        start.scatter_(0, label_scores.rows()[None], chosen.confidence)
    return torch.where(label_scores.keep, start, 1 / rows)


def _resized(values: Tensor, size: tuple[int, int], *, antialias: bool) -> Tensor:
    """(L, H, W) to another size, bilinearly, pixel centres at halves."""
    return functional.interpolate(
        values[None], size=size, mode="bilinear", align_corners=False, antialias=antialias
    )[0]
