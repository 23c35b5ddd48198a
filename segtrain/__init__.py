"""Pseudo-masks to a segmentation network and its mIoU.

The verbs are functions: `train`, `evaluate`, `predict`, `check`, `compare`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segtrain.verbs.check import check as check
    from segtrain.verbs.compare import compare as compare
    from segtrain.verbs.evaluate import evaluate as evaluate
    from segtrain.verbs.predict import predict as predict
    from segtrain.verbs.train import train as train

__version__ = "0.1.0"
__all__ = ["check", "compare", "evaluate", "predict", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"segtrain.verbs.{name}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
