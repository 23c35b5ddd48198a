"""Image-level labels to pseudo-masks: train a classifier, ask where it saw each class, clean that up.

The verbs are functions: `train`, `preview`, `generate`, `evaluate`, `sweep`, `refine`, `reference`,
`export`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudolabel.verbs.evaluate import evaluate as evaluate
    from pseudolabel.verbs.export import export as export
    from pseudolabel.verbs.generate import generate as generate
    from pseudolabel.verbs.preview import preview as preview
    from pseudolabel.verbs.reference import reference as reference
    from pseudolabel.verbs.refine import refine as refine
    from pseudolabel.verbs.sweep import sweep as sweep
    from pseudolabel.verbs.train import train as train

__version__ = "0.1.0"
__all__ = ["evaluate", "export", "generate", "preview", "reference", "refine", "sweep", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"pseudolabel.verbs.{name}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
