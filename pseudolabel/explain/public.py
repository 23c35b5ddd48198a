"""`pseudolabel.explain`: maps of the classes of one image, of any torch model."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pseudolabel import images
from pseudolabel.errors import NumericError, UsageError
from pseudolabel.explain.adapter import PREFIX, Adapter, adapted, bare, dtype_of, entry, own_device
from pseudolabel.explain.method import build, on_image
from pseudolabel.explain.model import Explained, Precision
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import Branch
from pseudolabel.recipes.steps import Step, StepLike, step_data, steps_data
from pseudolabel.records import Scores, Targets, nearest
from pseudolabel.registry import Component, Parameters

if TYPE_CHECKING:
    from PIL.Image import Image

RGB = tuple[float, float, float]
Classes = Sequence[str | int] | Mapping[str, Sequence[int]]

IMAGENET_MEAN: RGB = (0.485, 0.456, 0.406)  # RGB in 0..1, of torchvision's and most of timm's weights
IMAGENET_STD: RGB = (0.229, 0.224, 0.225)
BATCH = {"cpu": 4, "cuda": 64}  # items of one forward where `batch` is auto, as in a recipe


def explain(  # most of it is its documentation
    model: nn.Module,
    image: Image | NDArray[np.uint8] | Tensor,
    classes: Classes,
    *,
    names: Sequence[str] | None = None,
    method: StepLike = "saliency",
    aggregate: Sequence[StepLike] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    device: torch.device | str | None = None,
    precision: Precision = "float32",
) -> Scores:
    """Where a classifier sees each of some classes in an image.

    A copy of the model is explained, in evaluation mode; the model itself stays as it is: weights, gradients,
    mode, hooks and device.

    Args:
        model: from normalised images (B, 3, h, w) to logits (B, R), or to a tuple or an object with them
            (`.logits`): of timm, torchvision, transformers, or your own. One that takes images of a single
            size gets the image resized to it, and `random_crop` makes crops of that size unless told another.
        image: a PIL image, or uint8 RGB (H, W, 3), or a float tensor (3, H, W) or (1, 3, H, W) that is
            normalised already.
        classes: names or logit indices counted from 0, or {name: [logit indices]}, where the logit of a class
            is the logsumexp of its indices' logits.
        names: of the logits, in their order; None takes those that the model carries (`class_names`,
            `classes`, `names`, `config.id2label`).
        method: a map method, as a recipe names it: "saliency", or ("grad_cam", {"layer": "layer3"}), or
            {"name": "grad_cam", "layer": "layer3"}. Without `layer` the last layer is taken that is a grid of
            features on which the logits depend. `cam` needs a linear head on the mean of such a grid. Both
            are found by one traced forward. `pl methods` lists methods, aggregators and their parameters.
        aggregate: aggregators around the method, innermost first.
        mean, std: RGB in 0..1, by which a PIL image or an array is normalised; None takes those that the
            model carries (`pretrained_cfg` of timm), else ImageNet's, (0.485, 0.456, 0.406) and
            (0.229, 0.224, 0.225).
        seed: root of the random draws of crops and noise; the same seed gives the same crops.
        batch: most images or crops of one forward; auto: 4 on a CPU, 64 on a GPU.
        device: where the copy runs, "cpu" or "cuda:0"; None takes the model's own.
        precision: of the forwards, "float32" (float64 where the model's weights are) or "bf16" autocast.

    Returns:
        Scores of K classes: ids 1..K in the order of `classes`; values (K, H, W) float32 on the device, the
        raw maps at the size of the image, as `pl generate` stores them. They are >= 0 unless the method keeps
        the sign, and not scaled to 0..1: that is a refiner, `normalise`. A map that has one value everywhere
        says nothing and becomes 0.

    Raises:
        UsageError: no such class, method, aggregator or parameter, or a value out of its bounds; the message
            is that of a recipe.
        DataError: the model gives no logits or cannot be copied, no such layer, `cam` on a network without a
            linear head on pooled features, or no gradient reaches the image.
        NumericError: a map holds NaN or infinity.
        MachineError: no such device, or memory runs out for a single image or crop.

    Example:
        >>> import torch, pseudolabel as pl
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ...                       nn.Linear(8, 2))
        >>> image = torch.zeros(60, 80, 3, dtype=torch.uint8).numpy()
        >>> scores = pl.explain(model, image, classes=["dog"], names=["cat", "dog"], method="cam")
        >>> scores.ids, tuple(scores.values.shape)
        ((1,), (1, 60, 80))
    """
    written = steps_data("aggregate", aggregate)
    branch = load_recipe({"method": step_data("method", method), "aggregate": written}, Branch)
    if isinstance(batch, bool) or not (batch == "auto" or (isinstance(batch, int) and batch >= 1)):
        raise UsageError(f"batch: {batch!r} is not 'auto' or a number of items above 0")
    if precision not in ("float32", "bf16"):
        raise UsageError(f"precision: {precision!r} is not known; choose float32 or bf16")
    with _own_arithmetic():
        network = adapted(model, device)
        place = own_device(network)
        chosen = _classes(bare(model), classes, names, network.count)
        inputs = _inputs(bare(model), image, mean, std).to(place, dtype_of(network))
        size = int(inputs.shape[2]), int(inputs.shape[3])
        if not chosen:
            return Scores((), torch.zeros(0, *size, device=place))
        around = [_sided(step, own, network) for step, own in zip(branch.aggregate, written, strict=True)]
        line = build(_placed(branch.method, network), around)
        grouped = isinstance(classes, Mapping)
        explained = Explained(
            network,
            device=place,
            batch=BATCH.get(place.type, BATCH["cpu"]) if batch == "auto" else batch,
            groups=list(chosen.values()) if grouped else None,
            precision=precision,
        )
        ids = tuple(range(1, len(chosen) + 1))
        targets = Targets.of([ids if grouped else [1 + indices[0] for indices in chosen.values()]])
        attribution = line.explain(explained, inputs, targets, [(seed, "image")])
        return Scores(ids, _checked(on_image(line.reduce(attribution.values).float(), size), list(chosen)))


@contextlib.contextmanager
def _own_arithmetic() -> Iterator[None]:
    """The same numbers whatever modes the caller is in, and on a GPU the same bits every time."""
    with (
        torch.inference_mode(False),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        yield


def _checked(values: Tensor, names: Sequence[str | int]) -> Tensor:
    """Finite maps, those that are the same everywhere made 0."""
    low, high = values.amin(dim=(1, 2)), values.amax(dim=(1, 2))
    finite = (low.isfinite() & high.isfinite()).tolist()  # NaN is in both
    if not all(finite):
        broken = ", ".join(str(name) for name, fine in zip(names, finite, strict=True) if not fine)
        raise NumericError(
            f"the map of class {broken} holds NaN or infinity; look at the image and the weights"
        )
    return values.masked_fill((low == high)[:, None, None], 0.0)


def _classes(
    model: nn.Module, classes: Classes, names: Sequence[str] | None, raw: int
) -> dict[str | int, tuple[int, ...]]:
    """Logit indices of each class, in the order asked for."""
    if isinstance(classes, Mapping):
        return {name: _group(name, group, raw) for name, group in classes.items()}
    if isinstance(classes, str) or not hasattr(classes, "__iter__"):
        raise UsageError(f"classes: {classes!r} is no list of names or logit indices; write [{classes!r}]")
    members: dict[str | int, tuple[int, ...]] = {}
    known = _names(model, names, raw)
    for name in classes:
        if name in members:
            raise UsageError(f"classes: {name!r} stands twice; keep one")
        if not isinstance(name, str):
            members[name] = (_index(name, raw, ""),)
        elif known is None:
            raise UsageError(
                f"classes: {name!r} is a name, and the model carries none; give names=[...] of its {raw} "
                f"logits, or an index of 0..{raw - 1}"
            )
        elif name not in known:
            raise UsageError(f"classes: {name!r} is not a class; {nearest(name, known)}")
        else:
            members[name] = (known.index(name),)
    return members


def _group(name: str, group: Any, raw: int) -> tuple[int, ...]:
    """Logit indices of a class that is made of several."""
    if isinstance(group, str) or not hasattr(group, "__iter__") or not len(group):
        raise UsageError(f"classes: {name!r} has no list of logit indices; write {{{name!r}: [0, 3]}}")
    indices = tuple(_index(index, raw, f"{name!r} has ") for index in group)
    if len(set(indices)) < len(indices):
        raise UsageError(f"classes: {name!r} has an index twice; keep one")
    return indices


def _index(index: Any, raw: int, owner: str) -> int:
    try:
        number = operator.index(index)
    except TypeError:
        raise UsageError(f"classes: {owner}{index!r}, not a name or a logit index") from None
    if isinstance(index, bool) or not 0 <= number < raw:
        raise UsageError(f"classes: {owner}{index!r}, not a logit index of 0..{raw - 1}")
    return number


def _names(model: nn.Module, names: Sequence[str] | None, raw: int) -> list[str] | None:
    """Names of the logits: those given, or those that the model carries."""
    if names is not None:
        if isinstance(names, str) or len(names) != raw:
            raise UsageError(f"names: {len(names)} for {raw} logits; give one for each logit, in their order")
        return list(names)
    for carried in (
        *(getattr(model, key, None) for key in ("class_names", "classes", "names")),
        getattr(getattr(model, "config", None), "id2label", None),
    ):
        if isinstance(carried, Mapping):
            carried = [carried[key] for key in range(raw)] if set(carried) == set(range(raw)) else None
        if isinstance(carried, (list, tuple)) and len(carried) == raw:
            return [str(name) for name in carried]
    return None


def _inputs(
    model: nn.Module,
    image: Image | NDArray[np.uint8] | Tensor,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Tensor:
    """(1, 3, H, W) normalised, on the CPU unless it came from elsewhere."""
    if isinstance(image, Tensor):
        batch = image[None] if image.dim() == 3 else image
        if (
            batch.dim() != 4
            or batch.shape[:2] != (1, 3)
            or not batch.numel()
            or not batch.is_floating_point()
        ):
            raise UsageError(
                f"image: a tensor {tuple(image.shape)} of {image.dtype} is not a normalised float image "
                "(3, H, W) or (1, 3, H, W); give others as a PIL image or a uint8 array (H, W, 3)"
            )
        return batch.detach().clone()
    pixels = torch.from_numpy(rgb_array(image))
    shares = pixels.permute(2, 0, 1)[None].float() / 255
    own = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    middle = _triple("mean", mean or entry(own, "mean") or IMAGENET_MEAN)
    spread = _triple("std", std or entry(own, "std") or IMAGENET_STD)
    return (shares - middle) / spread


def rgb_array(image: Image | NDArray[np.uint8] | Tensor) -> NDArray[np.uint8]:
    """A PIL image or an array as uint8 RGB (H, W, 3), a PIL image turned as EXIF says.

    Raises:
        UsageError: it is something else.
        DataError: a PIL image whose file is damaged, or whose values nobody can show.
    """
    from PIL.Image import Image as Pillow

    if isinstance(image, Pillow):
        return images.rgb_of(image)
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
            return np.array(image)  # torch wants it writable and without negative strides
        raise UsageError(f"image: an array {image.shape} of {image.dtype} is not uint8 RGB (H, W, 3)")
    raise UsageError(f"image: a {type(image).__name__} is no PIL image and no uint8 array (H, W, 3)")


def _triple(key: str, values: Sequence[float]) -> Tensor:
    triple = [float(value) for value in values]
    if len(triple) != 3 or not np.isfinite(triple).all() or (key == "std" and min(triple) <= 0):
        raise UsageError(f"{key}: {list(values)} is not RGB in 0..1{', above 0' if key == 'std' else ''}")
    return torch.tensor(triple).view(1, 3, 1, 1)


def _placed(step: Step, network: Adapter) -> tuple[Component, Parameters]:
    """A method whose layer is named as the user's model names it."""
    layer = getattr(step.params, "layer", None)
    if isinstance(layer, str) and layer in dict(network.model.named_modules()):
        return step.component, step.params.model_copy(update={"layer": PREFIX + layer})
    return step.component, step.params


def _sided(step: Step, given: Mapping[str, Any], network: Adapter) -> tuple[Component, Parameters]:
    """An aggregator that makes views of the one size that the network takes, unless told another."""
    side = step.component.traits.get("side")
    if side is None or side in given or network.fixed is None or network.fixed[0] != network.fixed[1]:
        return step.component, step.params
    return step.component, step.params.model_copy(update={side: network.fixed[0]})
