"""Any torch classifier as `pseudolabel.explain.model.ExplainableNetwork` wants one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pseudolabel import draws
from pseudolabel.errors import DataError, MachineError
from pseudolabel.explain.grids import Size, grid_of
from pseudolabel.explain.resize import Resize
from pseudolabel.explain.tracing import caught, head_of, pooled_grid, target_of, traced

PREFIX = "model."  # before the names of the user's modules
FREE = ((96, 160), (131, 223))  # pixels; the second is no multiple of any usual stride
SIDES = (224, 256, 384, 299, 32, 28, 64, 96, 128, 160, 192, 240, 288, 320, 336, 448, 512)  # pixels
TOKENS = tuple(range(9))  # before those of the grid: class, distillation and register tokens


class Adapter(nn.Module):
    """A classifier of whole images with what map methods ask of one; its modules' names begin with `model.`.

    A model that takes images of one size alone gets every image resized to that size (bilinear, antialias)
    inside the forward, so that a gradient is still one of the whole image.

    Args:
        model: (B, 3, h, w) -> logits (B, R), or a tuple or object with them; in evaluation mode, frozen.

    Attributes:
        model: the model itself.
        fixed: the one size (h, w) that it takes, or None where it takes any.
        count: R, how many logits it gives.
        head, pooled, target, side: see `ExplainableNetwork`; `target` is None where there is no grid of
            features.

    Raises:
        DataError: it takes no image that was tried, or gives no logits.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.fixed = _size_of(model)
        size = self.fixed or FREE[0]
        self.side = min(size)
        declared = getattr(model, "num_prefix_tokens", None)
        self._prefixes = TOKENS if not isinstance(declared, int) else tuple(dict.fromkeys((declared, 0)))
        logits, trace = traced(self, _sample(model, size))
        self.count = logits.shape[1]
        head = head_of(logits, trace, size, self._prefixes)
        self.pooled = head is not None
        self.head: nn.Module
        self.target: str | None = None
        if head is None:
            self.head = _Logits(self.count)
            self.target = target_of(self, logits, trace, size, self._prefixes)
        else:
            self.head = head.linear
            self._place, self._last = head.features, head.channels_last

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, R) raw logits."""
        return logits_of(self.model(self._sized(images)))

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, D, h', w') features whose mean the head reads.

        Raises:
            DataError: there are none.
        """
        if not self.pooled:
            raise DataError(
                "layer: no grid of features was found that the logits depend on; name one, or take saliency"
            )
        images = self._sized(images)  # first: a resize calls torch functions, whose calls are counted
        size = int(images.shape[2]), int(images.shape[3])
        return pooled_grid(caught(self, images, self._place), size, self._prefixes, self._last)

    def classify(self, features: Tensor) -> Tensor:
        """(B, D, h', w') features -> (B, R) raw logits."""
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits

    def grid(self, values: Tensor, size: Size) -> Tensor:
        """Output of any module as (B, D, h', w'), given the (h, w) of the images.

        Raises:
            DataError: it has no grid.
        """
        return grid_of(values, self.fixed or size, self._prefixes)

    def _sized(self, images: Tensor) -> Tensor:
        """Images of the size that the model takes."""
        size = int(images.shape[2]), int(images.shape[3])
        if self.fixed is None or self.fixed == size:
            return images
        return Resize(size, self.fixed, antialias=True)(images)


class _Logits(nn.Module):
    """The number of a network's logits where no single layer stands for its head."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.out_features = count


def adapted(model: nn.Module, device: torch.device | str | None = None) -> Adapter:
    """A frozen copy of a model in evaluation mode, ready to be explained; half precision becomes float32.

    Args:
        model: left as it is: weights, gradients, mode, hooks and device.
        device: of the copy; None takes the model's own.

    Raises:
        DataError: it cannot be copied, takes no image that was tried, or gives no logits.
        MachineError: no such device, or its memory is full.
    """
    if not isinstance(model, nn.Module):
        raise DataError(f"model: a {type(model).__name__} is no torch.nn.Module; wrap its call in a module")
    model = bare(model)
    try:
        copied = copy.deepcopy(model)
    except Exception as error:  # whatever its attributes make of it
        raise DataError(
            f"model: cannot be copied ({_first_line(error)}); detach the tensors among its attributes"
        ) from error
    copied = copied.eval().requires_grad_(False)
    try:
        copied = copied.to(own_device(model) if device is None else device)
    except (RuntimeError, AssertionError) as error:
        raise MachineError(f"device: {str(device)!r} cannot be used ({_first_line(error)})") from error
    for parameter in copied.parameters():
        parameter.grad = None
    if dtype_of(copied) in (torch.float16, torch.bfloat16):
        copied = copied.float()
    return Adapter(copied).eval()


def bare(model: nn.Module) -> nn.Module:
    """The model inside a compiled or parallel one."""
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return bare(model.module)
    inner = getattr(model, "_orig_mod", None)  # of torch.compile
    return bare(inner) if isinstance(inner, nn.Module) else model


def own_device(model: nn.Module) -> torch.device:
    """The device of a model's weights; the CPU where it has none."""
    return next((tensor.device for tensor in _tensors(model)), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype:
    """The type of a model's weights; float32 where it has none."""
    return next((tensor.dtype for tensor in _tensors(model) if tensor.is_floating_point()), torch.float32)


def logits_of(output: Any) -> Tensor:
    """The logits (B, R) in what a model gives: a tensor, `.logits`, or the only one of a tuple.

    Raises:
        DataError: there are none, or several tensors may be them.
    """
    logits = output
    if isinstance(output, Mapping):
        logits = output.get("logits", output)
    elif not isinstance(output, Tensor):
        logits = getattr(output, "logits", output)
    if isinstance(logits, (tuple, list)):
        flat = [part for part in logits if isinstance(part, Tensor) and part.dim() == 2]
        logits = flat[0] if len(flat) == 1 else logits
    if isinstance(logits, Tensor) and logits.dim() == 2:
        return logits
    raise DataError(
        f"model: gives {_kind_of(logits)}, not logits (images, classes); wrap it in a module that gives them"
    )


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _size_of(model: nn.Module) -> Size | None:
    """None where a model takes images of any size, else the one that it says or that is seen to work.

    Raises:
        DataError: none works; what it said to the first is told.
    """
    faults = [_refusal(model, size) for size in FREE]
    if faults == [None, None]:
        return None
    first = next(fault for fault in faults if fault is not None)
    if isinstance(first, DataError):  # it takes the size and gives no logits
        raise first
    for size in dict.fromkeys([*_declared(model), *((side, side) for side in SIDES)]):
        if _refusal(model, size) is None:
            return size
    sides = ", ".join(f"{side}" for side in SIDES[:4])
    raise DataError(
        f"model: takes no normalised image (1, 3, h, w) of {FREE[0][0]} x {FREE[0][1]}, {sides}, ... "
        f"({type(first).__name__}: {_first_line(first)})"
    ) from first


def _refusal(model: nn.Module, size: Size) -> Exception | None:
    try:
        with torch.no_grad():
            logits_of(model(_sample(model, size)))
    except Exception as error:  # a network may refuse a size in any way
        return error
    return None


def _declared(model: nn.Module) -> Iterator[Size]:
    """Sizes that a model says it was made for: timm, torchvision and transformers."""
    sizes = [
        getattr(getattr(model, "patch_embed", None), "img_size", None),
        getattr(getattr(model, "config", None), "image_size", None),
        getattr(model, "image_size", None),
    ]
    timm = entry(getattr(model, "pretrained_cfg", None), "input_size")
    if isinstance(timm, (tuple, list)) and len(timm) == 3:
        sizes.append(timm[1:])
    for size in sizes:
        pair = (size, size) if isinstance(size, int) else size
        if (
            isinstance(pair, (tuple, list))
            and len(pair) == 2
            and all(isinstance(n, int) and n > 0 for n in pair)
        ):
            yield pair[0], pair[1]


def entry(config: Any, key: str) -> Any:
    """A value of what a model says of itself, a dict or an object."""
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)


def _sample(model: nn.Module, size: Size) -> Tensor:
    sample = torch.randn(1, 3, *size, generator=draws.generator("adapter"))
    return sample.to(own_device(model), dtype_of(model))


def _kind_of(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
