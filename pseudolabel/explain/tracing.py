"""One traced forward of any classifier: where its features are, and which layer a gradient explains.

CAM needs a linear head on the mean of a grid of features. It is found by value: a linear layer (or a 1 x 1
convolution) that writes the logits and reads the mean of some tensor of the forward over its grid, or that
writes a grid whose mean is the logits. The mean may be a module, a function or a sum of the user's own, since
every argument of every torch function is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pseudolabel import draws
from pseudolabel.errors import DataError
from pseudolabel.explain.grids import Size, grid_of

AGREEMENT = 1e-4  # relative; the same sums in another order differ by about 1e-6


@dataclass(frozen=True)
class TracedTensor:
    """A tensor of a forward: the input of a module, or an argument of the n-th call of a torch function."""

    module: str = ""
    function: Callable[..., Any] | None = None
    call: int = 0
    argument: int | str = 0


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear head on pooled features.

    Attributes:
        linear: (B, D) -> (B, R).
        features: where its features are.
        channels_last: whether they are (B, h', w', D).
    """

    linear: nn.Module
    features: TracedTensor
    channels_last: bool


@dataclass
class Trace:
    """What a forward showed.

    Attributes:
        outputs: (name, output) of each module that gave a tensor, in order of its end.
        layers: (name, module, input, output, its version then) of each linear layer and convolution.
        arguments: (place, tensor, its version then) of each grid that a function was given, in order.
    """

    outputs: list[tuple[str, Tensor]] = field(default_factory=list)
    layers: list[tuple[str, nn.Module, Tensor, Tensor, int]] = field(default_factory=list)
    arguments: list[tuple[TracedTensor, Tensor, int]] = field(default_factory=list)


class Tracing(TorchFunctionMode):
    """Notes every grid that a torch function is given."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace
        self.calls: dict[Any, int] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function as it is."""
        number = self.calls.get(function, 0)
        self.calls[function] = number + 1
        for name, value in _arguments(args, kwargs):
            if isinstance(value, Tensor) and value.dim() in (3, 4):
                place = TracedTensor(function=function, call=number, argument=name)
                self.trace.arguments.append((place, value, value._version))
        return function(*args, **(kwargs or {}))


class Catching(TorchFunctionMode):
    """Keeps the one argument of the one call that a place names."""

    def __init__(self, place: TracedTensor) -> None:
        super().__init__()
        self.place, self.calls = place, 0
        self.caught: Tensor | None = None

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function as it is."""
        if function == self.place.function:
            if self.calls == self.place.call:
                self.caught = dict(_arguments(args, kwargs)).get(self.place.argument)
            self.calls += 1
        return function(*args, **(kwargs or {}))


def traced(network: nn.Module, images: Tensor) -> tuple[Tensor, Trace]:
    """Logits (1, R) of a network that gives them, with a graph to the images, and what the forward showed.

    Args:
        network: in evaluation mode; left as it is.
        images: (1, 3, h, w).
    """
    trace = Trace()

    def note(name: str) -> Any:
        def end(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                trace.outputs.append((name, output))
                if inputs and isinstance(inputs[0], Tensor) and isinstance(module, (nn.Linear, nn.Conv2d)):
                    trace.layers.append((name, module, inputs[0], output, output._version))

        return end

    hooks = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    try:
        with torch.enable_grad(), Tracing(trace):
            logits = network(images.detach().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    return logits, trace


def head_of(logits: Tensor, trace: Trace, size: Size, prefixes: Sequence[int]) -> LinearHead | None:
    """The linear head on pooled features, or None where the logits are not made by one.

    Args:
        logits, trace: of `traced`.
        size: (h, w) of the images of that forward.
        prefixes: see `grid_of`.
    """
    for name, module, given, written, wrote in reversed(trace.layers):
        # an output that was worked on in place, by a ReLU for instance, is no longer what the layer wrote
        if written._version != wrote or (isinstance(module, nn.Conv2d) and not _pointwise(module)):
            continue
        channels_last = isinstance(module, nn.Linear)
        if written.numel() == logits.numel():  # after the pooling
            if not _equal(written.flatten(), logits.flatten()):
                continue
            for place, values, version in reversed(trace.arguments):
                for last in (False, True):
                    if values._version == version and _is_mean(given, values, size, prefixes, last):
                        return LinearHead(_linear(module), place, last)
        elif _is_mean(logits, written, size, prefixes, channels_last):  # before it
            return LinearHead(_linear(module), TracedTensor(module=name), channels_last)
    return None


def target_of(
    network: nn.Module, logits: Tensor, trace: Trace, size: Size, prefixes: Sequence[int]
) -> str | None:
    """The last layer whose cells the logits depend on, or None where there is none.

    A class token reads the last block alone: the cells of its output are not seen, those before are. Norms
    and members of a sequence of layers go before other modules, as a person would name them.
    """
    if not logits.requires_grad:
        return None
    outputs = [(name, values) for name, values in trace.outputs if values.requires_grad]
    mixing = torch.randn(logits.shape[1], generator=draws.generator("target")).to(logits)
    tensors = [values for _, values in outputs]
    gradients = torch.autograd.grad((logits @ mixing).sum(), tensors, allow_unused=True)
    reaching = [name for (name, _), g in zip(outputs, gradients, strict=True) if _reaches(g, size, prefixes)]
    modules = dict(network.named_modules())
    named = [name for name in reaching if _likely(name, modules)]
    return next(reversed(named or reaching), None)


def caught(network: nn.Module, images: Tensor, place: TracedTensor) -> Tensor:
    """The tensor at a place of a forward of these images.

    Raises:
        DataError: the forward does not come by that place.
    """
    inputs_of_module: list[Tensor] = []
    if place.module:
        module = network.get_submodule(place.module)
        hook = module.register_forward_pre_hook(lambda module, inputs: inputs_of_module.append(inputs[0]))
        try:
            network(images)
        finally:
            hook.remove()
    else:
        with Catching(place) as catching:
            network(images)
        inputs_of_module = [] if catching.caught is None else [catching.caught]
    if not inputs_of_module:
        raise DataError(
            "model: its forward on this image leaves out the pooling that it was seen to do; take grad_cam "
            "or saliency"
        )
    return inputs_of_module[-1]


def _arguments(args: Sequence[Any], kwargs: dict[str, Any] | None) -> Iterator[tuple[int | str, Any]]:
    yield from enumerate(args)
    yield from (kwargs or {}).items()


def _is_mean(mean: Tensor, values: Tensor, size: Size, prefixes: Sequence[int], channels_last: bool) -> bool:
    """Whether (1, D) or (1, D, 1, 1) is the mean of a tensor over its grid of several cells."""
    try:
        cells = pooled_grid(values, size, prefixes, channels_last)
    except DataError:
        return False
    wanted = mean.flatten()
    if cells.shape[2] * cells.shape[3] < 2 or cells.shape[1] != len(wanted) or len(cells) != 1:
        return False
    return _equal(cells.mean(dim=(2, 3)).flatten(), wanted)


def pooled_grid(values: Tensor, size: Size, prefixes: Sequence[int], channels_last: bool) -> Tensor:
    """Pooled features as (B, D, h', w'), given the order of their axes where there are four.

    Raises:
        DataError: they have no grid.
    """
    if values.dim() == 4:
        return values.permute(0, 3, 1, 2) if channels_last else values
    return grid_of(values, size, prefixes)


def _pointwise(module: nn.Conv2d) -> bool:
    plain = module.kernel_size == module.stride == (1, 1) and module.groups == 1
    return plain and module.padding in ((0, 0), 0, "valid", "same")


def _linear(module: nn.Module) -> nn.Module:
    """The layer as a linear one."""
    if isinstance(module, nn.Linear):
        return module
    assert isinstance(module, nn.Conv2d)
    weight, bias = module.weight, module.bias
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().flatten(1), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear.eval()


def _reaches(gradient: Tensor | None, size: Size, prefixes: Sequence[int]) -> bool:
    """Whether a gradient is one of several cells, and not zero everywhere."""
    if gradient is None:
        return False
    try:
        cells = grid_of(gradient, size, prefixes)
    except DataError:
        return False
    return cells.shape[2] * cells.shape[3] > 1 and bool((cells != 0).any())


def _likely(name: str, modules: dict[str, nn.Module]) -> bool:
    parent = modules[name.rpartition(".")[0]]
    return (
        isinstance(parent, (nn.Sequential, nn.ModuleList)) or "norm" in type(modules[name]).__name__.lower()
    )


def _equal(tensor: Tensor, other: Tensor) -> bool:
    """To rounding, and not because both are 0."""
    if tensor.shape != other.shape:
        return False
    scale = other.abs().amax()
    return bool((scale > 0) & ((tensor - other).abs().amax() <= AGREEMENT * scale))
