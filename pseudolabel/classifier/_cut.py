"""A torchvision network cut in two where its last grid of features is: what comes before, what comes after.

Only the network's own `forward` is traced, one step a module, so that its modules stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from pseudolabel.classifier._layout import OTHERS, SIZES
from pseudolabel.errors import DataError


@dataclass(frozen=True)
class _Of:
    """The result of an earlier step, by its name."""

    name: str


@dataclass(frozen=True)
class _Step:
    """One call of the network's forward."""

    name: str
    kind: str
    target: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


class _TopLevel(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


class Cut(nn.Module):
    """A torchvision network with `forward_features` and, unless headless, `forward_head`.

    Args:
        model: of torchvision, in evaluation mode; its modules become this one's, under their names.
        name, key: of the network and of its section in the recipe, for messages.
        headless: leave away the modules after the features.

    Raises:
        DataError: its forward cannot be followed, or there is no grid that all the rest is made from.
    """

    def __init__(self, model: nn.Module, name: str, key: str, *, headless: bool) -> None:
        super().__init__()
        children = dict(model.named_children())
        try:
            steps = _steps(model)
            at = self._place(model, steps)
        except Exception as error:  # tracing runs the network's own code on stand-ins
            raise DataError(
                f"{key}.backbone: {name!r} has no grid of features that can be cut out; {OTHERS}"
            ) from error
        self._before, self._after = steps[: at + 1], ([] if headless else steps[at + 1 :])
        used = {
            str(step.target).split(".")[0]
            for step in (*self._before, *self._after)
            if step.kind in ("call_module", "get_attr")
        }
        for child, module in children.items():
            if child in used:
                self.add_module(child, module)
        for step in (*self._before, *self._after):
            if step.kind == "get_attr" and "." not in step.target:
                member = getattr(model, step.target)
                if isinstance(member, nn.Parameter):
                    self.register_parameter(step.target, member)
                else:
                    self.register_buffer(step.target, member)
        self.train()

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, D, h', w')."""
        features: Tensor = _run(self, self._before, {"": images})[self._before[-1].name]
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, D, h', w') -> (B, R) raw logits."""
        done = _run(self, self._after, {self._before[-1].name: features})
        logits: Tensor = done[self._after[-1].name]
        return logits

    @staticmethod
    def _place(model: nn.Module, steps: list[_Step]) -> int:
        """The last step that gives a grid which grows with the image, and from which all after it come."""
        sizes = []
        for height, width in SIZES:
            with torch.no_grad():
                done = _run(model, steps, {"": torch.zeros(1, 3, height, width)})
            sizes.append({name: tuple(v.shape) for name, v in done.items() if isinstance(v, Tensor)})
        small, large = sizes
        for at in reversed(range(len(steps))):
            a, b = small.get(steps[at].name, ()), large.get(steps[at].name, ())
            if len(a) == 4 and a[1] == b[1] and a[2] != b[2] and a[3] != b[3]:
                known = {step.name for step in steps[at:]}
                if all(_names(step) <= known for step in steps[at + 1 :]):
                    return at
        raise ValueError("no grid")


def _steps(model: nn.Module) -> list[_Step]:
    """The calls of a network's forward, in order."""
    graph = _TopLevel().trace(model)
    steps: list[_Step] = []
    names: dict[fx.Node, str] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            names[node] = ""
        elif node.op != "output":
            names[node] = node.name
            keywords = {key: _by_name(value, names) for key, value in node.kwargs.items()}
            steps.append(_Step(node.name, node.op, node.target, _by_name(node.args, names), keywords))
    return steps


def _by_name(value: Any, names: dict[fx.Node, str]) -> Any:
    """An argument with the results of earlier steps by their names."""
    if isinstance(value, fx.Node):
        return _Of(names[value])
    if isinstance(value, (list, tuple)):
        values = [_by_name(inner, names) for inner in value]
        return values if isinstance(value, list) else tuple(values)
    return value


def _run(model: nn.Module, steps: list[_Step], done: dict[str, Any]) -> dict[str, Any]:
    """Do steps one after the other; returns all results by name."""
    for step in steps:
        arguments = [_filled(value, done) for value in step.arguments]
        keywords = {key: _filled(value, done) for key, value in step.keywords.items()}
        if step.kind == "call_module":
            done[step.name] = model.get_submodule(step.target)(*arguments, **keywords)
        elif step.kind == "call_method":
            done[step.name] = getattr(arguments[0], step.target)(*arguments[1:], **keywords)
        elif step.kind == "get_attr":
            place, _, last = step.target.rpartition(".")
            done[step.name] = getattr(model.get_submodule(place), last)
        else:
            done[step.name] = step.target(*arguments, **keywords)
    return done


def _filled(value: Any, done: dict[str, Any]) -> Any:
    if isinstance(value, _Of):
        return done[value.name]
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(inner, done) for inner in value)
    return value


def _names(step: _Step) -> set[str]:
    node_names: set[str] = set()
    waiting = [*step.arguments, *step.keywords.values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Of):
            node_names.add(value.name)
        elif isinstance(value, (list, tuple)):
            waiting += value
    return node_names
