"""Image-level labels to pseudo-masks: train a classifier, ask where it saw each class, clean that up.

The commands are functions: `train`, `preview`, `generate`, `evaluate`, `sweep`, `refine`, `reference`,
`export`. `explain` gives the maps of one image and any torch model, `to_mask` their mask. `Run.open(path)`
reads a finished run.
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
    from pseudolabel.explain.public import explain as explain
    from pseudolabel.pipeline.to_mask import to_mask as to_mask
    from pseudolabel.runs.run import Run as Run

__version__ = "0.1.0"
__all__ = [
    "Run",
    "evaluate",
    "explain",
    "export",
    "generate",
    "preview",
    "reference",
    "refine",
    "sweep",
    "to_mask",
    "train",
]
ELSEWHERE = {"Run": "pseudolabel.runs.run", "to_mask": "pseudolabel.pipeline.to_mask"}  # others are commands


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "explain":  # the package itself is the function
        return importlib.import_module("pseudolabel.explain")
    return getattr(importlib.import_module(ELSEWHERE.get(name, f"pseudolabel.commands.{name}")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
