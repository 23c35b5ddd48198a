"""Image-level labels to pseudo-masks: train a classifier, ask where it saw each class, clean that up.

The commands are functions: `train`, `preview`, `generate`, `evaluate`, `sweep`, `refine`, `reference`,
`export`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudolabel.commands.evaluate import evaluate as evaluate
    from pseudolabel.commands.export import export as export
    from pseudolabel.commands.generate import generate as generate
    from pseudolabel.commands.preview import preview as preview
    from pseudolabel.commands.reference import reference as reference
    from pseudolabel.commands.refine import refine as refine
    from pseudolabel.commands.sweep import sweep as sweep
    from pseudolabel.commands.train import train as train

__version__ = "0.1.0"
__all__ = ["evaluate", "export", "generate", "preview", "reference", "refine", "sweep", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"pseudolabel.commands.{name}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
