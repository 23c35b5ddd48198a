"""Pseudo-masks to a segmentation network and its mIoU.

The commands are functions: `train`, `evaluate`, `predict`, `check`, `compare`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segtrain.commands.check import check as check
    from segtrain.commands.compare import compare as compare
    from segtrain.commands.evaluate import evaluate as evaluate
    from segtrain.commands.predict import predict as predict
    from segtrain.commands.train import train as train

__version__ = "0.1.0"
__all__ = ["check", "compare", "evaluate", "predict", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"segtrain.commands.{name}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
