"""A layer of the network by name, and a forward whose graph begins at its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pseudolabel.errors import DataError
from pseudolabel.explain.folding import Fold
from pseudolabel.records import nearest

LAST = "last features"  # what `ExplainableNetwork.features` gives; a module's name has no space


@dataclass(frozen=True, eq=False)
class Activations:
    """One forward that can be differentiated back to a layer, and no further.

    Attributes:
        output: (B, ...) what the layer wrote, a leaf that wants a gradient.
        logits: (B, C), in the graph.
        totals: (B,) logsumexp of all raw logits, without a graph.
        grid: something shaped like `output` -> (B, D, h', w').
    """

    output: Tensor
    logits: Tensor
    totals: Tensor
    grid: Callable[[Tensor], Tensor]


@dataclass
class GraphStart:
    """Where the graph begins: the outputs of the layer, one for each time it ran."""

    outputs: list[Tensor] = field(default_factory=list)


def resolve(network: nn.Module, layer: str) -> str:
    """The full dotted name of a module, given that name or an end of it that only one module has.

    Raises:
        DataError: no such module (the nearest is named), or several.
    """
    names: list[str] = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
    if layer in names:
        return layer
    ends = [name for name in names if name.endswith("." + layer)]
    if len(ends) > 1:
        some = ", ".join(ends[:5]) + (", ..." if len(ends) > 5 else "")
        raise DataError(f"layer: {layer!r} may be {some}; write the whole name")
    if not ends:
        hint = nearest(layer, dict.fromkeys(end for name in names for end in _ends(name)))
        raise DataError(f"layer: {layer!r} is not a module of the network; {hint}")
    return ends[0]


def _ends(name: str) -> list[str]:
    """A dotted name and what is left of it without its first parts, but for a bare number."""
    parts = name.split(".")
    return [name, *(".".join(parts[at:]) for at in range(1, len(parts)) if not parts[at].isdigit())]


@contextmanager
def starting_at(network: nn.Module, name: str, folds: Sequence[Fold]) -> Iterator[GraphStart]:
    """Forwards in this block begin their graph at the output of the module `name`.

    Of a module that runs several times in a forward (a shared activation) the last time counts. Where the
    module ends in a convolution whose norm was folded into it, the convolution's own output is restored.

    Raises:
        DataError: the module gives something else than a tensor.
    """
    module, start = network.get_submodule(name), GraphStart()
    inside = {id(part) for part in module.modules()}
    wrote: list[tuple[Tensor, Fold]] = []

    def note(fold: Fold) -> Callable[..., None]:
        return lambda convolution, inputs, output: wrote.append((output, fold))

    def begin(layer: nn.Module, inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise DataError(f"layer: {name!r} gives {type(output).__name__}, not a tensor; take another")
        fold = next((fold for tensor, fold in wrote if tensor is output), None)
        wrote.clear()
        leaf = full(output.detach())
        if fold is not None:
            leaf = fold.undone(leaf)
        start.outputs.append(leaf.requires_grad_())
        # a copy, since what follows may work in place
        passed = leaf.clone() if fold is None else fold.redone(leaf)
        return passed.to(output.dtype)

    # the inner hooks first: where the module is the convolution itself, it is noted before it begins
    hooks = [
        fold.convolution.register_forward_hook(note(fold))
        for fold in folds
        if id(fold.convolution) in inside and id(fold.place) not in inside
    ]
    hooks.append(module.register_forward_hook(begin))
    try:
        yield start
    finally:
        for hook in hooks:
            hook.remove()


def full(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
