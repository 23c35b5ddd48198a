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
        with torch.enable_grad():
            inputs = model.on_device(images).detach().requires_grad_()
            logits, totals = model.outputs(inputs)
            values = inputs.new_empty((len(rows), *inputs.shape[1:]))
            slots = wanted.slots()
            for number, slot in enumerate(slots):
                # images do not mix, so the gradient of the sum holds each image's own
                chosen = logits[rows[slot], columns[slot]].sum()
                more = number + 1 < len(slots)
                (gradient,) = torch.autograd.grad(chosen, inputs, retain_graph=more)
                values[slot] = gradient[rows[slot]]
        return Attribution(values, logits.detach()[rows, columns], totals.detach()[rows])

    return model.in_parts(images, targets, part)
