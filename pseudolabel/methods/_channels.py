"""Three channels of attribution as one map.

max_abs: max_rgb |g|   mean_abs: mean_rgb |g|   l2: sqrt(sum_rgb g^2)   signed_sum: sum_rgb g
"""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from pseudolabel.registry import Parameters, parameter

Channels = Literal["max_abs", "mean_abs", "l2", "signed_sum"]


class OneMap(Parameters):
    """How three channels become one map."""

    channels: Channels = parameter("max_abs", help="one map of the three channels; signed_sum keeps the sign")


class _WithChannels(Protocol):
    @property
    def channels(self) -> Channels: ...


def one_map(values: Tensor, params: _WithChannels) -> Tensor:
    """The reduce of gradient-like attribution: (T, 3, h, w) -> (T, h, w), >= 0 but for signed_sum."""
    match params.channels:
        case "max_abs":
            return values.abs().amax(dim=1)
        case "mean_abs":
            return values.abs().mean(dim=1)
        case "l2":
            return values.square().sum(dim=1).sqrt()
        case "signed_sum":
            return values.sum(dim=1)


def unsigned(params: _WithChannels) -> bool:
    """Whether maps of `one_map` are never below 0."""
    return params.channels != "signed_sum"
