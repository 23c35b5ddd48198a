"""`seg compare`: several ways to training masks, the same network on each, one table and one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.runs import writing

if TYPE_CHECKING:
    from segtrain.comparison.recipe import CompareRecipe


def compare(
    recipe: Path | str | Mapping[str, Any] | CompareRecipe,
    out: Path | str,
    *,
    overrides: Sequence[str] = (),
    device: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make masks by every candidate, score them, train the network on each, and write it all up.

    Stages that are finished and unchanged are left as they are; a candidate that is added later costs only
    itself.

    Args:
        recipe: of `seg compare`.
        out: DIR: comparison.json, comparison.md, report.html, images.png, and a run folder a stage.
        overrides: of the comparison's keys; `data.root=X` reaches the data of every recipe.
        device: auto, cpu, cuda or cuda:n.
        workers: beside the model; None leaves it to each stage.
        overwrite: a stage made by another configuration is moved aside and run again.
        new: take the next numbered folder where DIR holds anything.
        wait: wait for another process that writes DIR.
        quiet: no progress.

    Returns:
        What comparison.json holds, and `run`, the folder.

    Raises:
        UsageError: a recipe is refused, or a stage's folder is of another configuration.
        PseudolabelError: of the stage that failed, its name in front.
    """
    from segtrain.commands.evaluate import evaluate
    from segtrain.commands.predict import predict
    from segtrain.commands.train import train
    from segtrain.comparison import plan as plans
    from segtrain.comparison.report import write
    from segtrain.comparison.stages import Options, SegCommands, run

    plan = plans.read(recipe, overrides)
    options = Options(device, workers, overwrite, quiet)
    # Each stage keeps its own fingerprint; the folder as a whole takes any comparison, so that a candidate
    # can be added without the others being made again.
    with writing.open_run(out, "seg compare", {}, new=new, wait=wait) as folder:
        results = run(plan, folder.path, SegCommands(train, evaluate, predict), options)
        return {**write(plan, results, folder.path), "run": str(folder.path)}
