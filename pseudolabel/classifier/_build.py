"""A timm or torchvision network by name, made so that it takes images of any size where it can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pseudolabel._torchvision  # noqa: F401

# isort: split
import timm
from torch import nn

from pseudolabel.classifier._cut import Cut
from pseudolabel.classifier._layout import OTHERS
from pseudolabel.errors import DataError
from pseudolabel.records import nearest
from pseudolabel.weights import TORCHVISION

NATURAL = 32  # output stride of nearly every backbone when nothing is dilated
REFUSALS = (TypeError, AssertionError, ValueError, NotImplementedError, RuntimeError)
ANY_SIZE = ({"dynamic_img_size": True, "dynamic_img_pad": True}, {"dynamic_img_size": True})


def create(name: str, output_stride: int | None, key: str, *, headless: bool) -> nn.Module:
    """A network with random weights.

    Args:
        name: of timm, or `torchvision/NAME`.
        output_stride: dilate to it where the network can; None leaves its own.
        key: section of the recipe, for messages.
        headless: without what comes after the last features.

    Returns:
        A module with `forward_features` and, unless headless, `forward_head`.

    Raises:
        DataError: no such network, or its features cannot be told from its head.
    """
    dilated = output_stride not in (None, NATURAL)
    if name.startswith(TORCHVISION):
        return _torchvision(name, output_stride if dilated else None, key, headless)
    if not timm.is_model(name):
        near = nearest(name, timm.list_models())
        raise DataError(f"{key}.backbone: {name!r} is not a model of timm; {near}")
    ends: tuple[dict[str, Any], ...] = ({"num_classes": logits_of(name)},)
    if headless:
        ends = ({"num_classes": 0, "global_pool": ""}, {"num_classes": 0})  # some pool in any case
    fault: Exception | None = None
    for more in (*_wishes(name, output_stride if dilated else None), {}):
        for end in ends:
            try:
                network: nn.Module = timm.create_model(name, pretrained=False, **end, **more)
            except REFUSALS as error:
                fault = error  # it does not know this wish
                continue
            if more.get("dynamic_img_size") and getattr(network, "patch_embed", None) is not None:
                # networks with windows take any size but leave the padding of their first step out
                network.patch_embed.dynamic_img_pad = True  # type: ignore[union-attr]
            return network
    raise DataError(f"{key}.backbone: {name!r} cannot be made ({fault}); {OTHERS}") from fault


def logits_of(name: str) -> int:
    """How many logits the head has that belongs to a network's published weights."""
    if name.startswith(TORCHVISION):
        return 1000
    config = timm.get_pretrained_cfg(name)
    return int(config.num_classes) if config is not None and config.num_classes else 1000


def _wishes(name: str, output_stride: int | None) -> Iterator[dict[str, Any]]:
    if output_stride is not None:
        yield {"output_stride": output_stride}
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        yield from ANY_SIZE


def _torchvision(name: str, output_stride: int | None, key: str, headless: bool) -> nn.Module:
    from torchvision import models

    short = name.removeprefix(TORCHVISION)
    known = models.list_models(module=models)
    if short not in known:
        near = nearest(short, known)
        raise DataError(f"{key}.backbone: {short!r} is not a classifier of torchvision; {near}")
    options: dict[str, Any] = {}
    if output_stride is not None:
        options["replace_stride_with_dilation"] = [False, output_stride <= 8, output_stride <= 16]
    if short in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # else it warns of its slow initialisation
    try:
        network = models.get_model(short, weights=None, **options)
    except REFUSALS:
        options.pop("replace_stride_with_dilation", None)
        network = models.get_model(short, weights=None, **options)
    return Cut(network.eval(), name, key, headless=headless)
