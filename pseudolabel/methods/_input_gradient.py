"""The gradient of a logit with respect to the image."""

from __future__ import annotations

import torch
from torch import Tensor

from pseudolabel.explain.model import Explained
from pseudolabel.records import Attribution, Targets


def input_gradient(model: Explained, images: Tensor, targets: Targets) -> Attribution:
    """Gradient of each target's logit: one forward, and one backward for each label slot.

    Args:
        model: the frozen classifier.
        images: (B, 3, h, w) normalised.
        targets: T >= 1 targets.

    Returns:
        values (T, 3, h, w), signed; logits (T,), totals (T,).

    Raises:
        DataError: no gradient reaches the input.
    """
    model.probe()

    def part(images: Tensor, wanted: Targets) -> Attribution:
        rows, columns = model.index(wanted)
        placed = model.on_device(images)
        name = ("gradient", wanted.images, wanted.classes)
        kept: Attribution | None = model.kept(placed, name)
        if kept is not None:
            return kept
        with torch.enable_grad():
            inputs = placed.detach().requires_grad_()
            logits, totals = _outputs(model, inputs)
            values = inputs.new_empty((len(rows), *inputs.shape[1:]))
            slots = wanted.slots()
            for number, slot in enumerate(slots):
                # images do not mix, so the gradient of the sum holds each image's own
                chosen = logits[rows[slot], columns[slot]].sum()
                more = number + 1 < len(slots)
                (gradient,) = torch.autograd.grad(chosen, inputs, retain_graph=more)
                values[slot] = gradient[rows[slot]]
        attribution = Attribution(values, logits.detach()[rows, columns], totals.detach()[rows])
        model.keep(placed, name, attribution)
        return attribution

    return model.in_parts(images, targets, part)


def _outputs(model: Explained, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and totals; of images that an activation map shares, by way of the features that it needs."""
    if model.shares(inputs) and getattr(model.network, "pooled", True):
        return model.grouped(model.features_and_raw(inputs)[1])
    return model.outputs(inputs)
