"""Maps made of a layer's output A and the gradient of a logit with respect to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pseudolabel.explain.model import Explained
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import Parameters, parameter

Combine = Callable[[Tensor, Tensor], Tensor]


class OfLayer(Parameters):
    """Which layer."""

    layer: str | None = parameter(
        None, help="output of this module, by name or a unique end of it; null chooses"
    )


def positive(values: Tensor, params: Parameters) -> Tensor:
    """Signed votes (T, 1, h', w') -> (T, h', w') >= 0."""
    return values[:, 0].relu()


def always(params: Parameters) -> bool:
    """Maps of `positive` are never below 0, whatever the parameters."""
    return True


def activation_map(
    model: Explained, images: Tensor, targets: Targets, layer: str | None, combine: Combine
) -> Attribution:
    """Signed map of each target at the layer's grid: one forward, a backward to the layer a label slot.

    Args:
        model: the frozen classifier.
        images: (B, 3, h, w) normalised.
        targets: T >= 1 targets.
        layer: a module's name, or None for the network's own choice.
        combine: output and gradient, (N, D, h', w') each -> (N, h', w').

    Returns:
        values (T, 1, h', w'), logits (T,), totals (T,).

    Raises:
        DataError: no such layer, or its output is no grid.
    """

    def part(images: Tensor, wanted: Targets) -> Attribution:
        rows, columns = model.index(wanted)
        run = model.activations(model.on_device(images), layer)
        output = run.grid(run.output.detach())
        values = output.new_empty((len(rows), 1, *output.shape[2:]))
        slots = wanted.slots()
        for number, slot in enumerate(slots):
            # images do not mix, so the gradient of the sum holds each image's own
            chosen = run.logits[rows[slot], columns[slot]].sum()
            more = number + 1 < len(slots)
            (gradient,) = torch.autograd.grad(chosen, run.output, retain_graph=more)
            gradient = run.grid(gradient)
            if [wanted.images[target] for target in slot] == list(range(len(output))):
                values[slot, 0] = combine(output, gradient)
            else:
                values[slot, 0] = combine(output[rows[slot]], gradient[rows[slot]])
        return Attribution(values, run.logits.detach()[rows, columns], run.totals[rows])

    return model.in_parts(images, targets, part)
