"""Results of `seg` as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pseudolabel.figures.text import evaluation, percent, table


def training(result: Mapping[str, Any]) -> str:
    """Result of `seg train`."""
    loss = "undefined" if result["loss"] is None else f"{result['loss']:.4f}"
    line = f"{result['images']} images, {result['epochs']} epochs, {result['steps']} steps, loss {loss}"
    if result["miou"] is not None:
        line += f", validation mIoU {percent(result['miou'])} % (best {percent(result['best'])} %)"
    if result["steps_skipped"]:
        line += f"; {result['steps_skipped']} steps left out, see problems.jsonl"
    return line


def prediction(result: Mapping[str, Any]) -> str:
    """Result of `seg predict`."""
    lines = [f"{result['done']} of {result['images']} images on {result['device']}"]
    lines += [f"{row['file']}: {row['what']}; {row['remedy']}" for row in result["problems"]]
    return "\n".join(lines)


def inspection(result: Mapping[str, Any]) -> str:
    """Result of `seg check`."""
    faults = result["faults"]
    lines = [f"{fault['file']}: {fault['what']}; {fault['remedy']}" for fault in faults]
    lines += [
        "",
        f"{result['good']} of {result['images']} masks are good, {result['failed']} files are to be mended",
        f"{len(result['background_only'])} are background only, {len(result['all_ignored'])} all ignored",
    ]
    if result["masks_not_listed"]:
        lines.append(f"{result['masks_not_listed']} masks belong to images that are not in the list")
    if "fixed" in result:
        lines.append(f"{len(result['fixed'])} masks were mapped back from colours")
    total = max(1, sum(result["pixels"].values()))
    rows = [[name, str(count), percent(count / total)] for name, count in result["pixels"].items()]
    return "\n".join([*lines, "", table(["class", "pixels", "%"], rows)]).strip()


def comparison(result: Mapping[str, Any]) -> str:
    """Result of `seg compare`."""
    from segtrain.comparison.table import terminal

    return terminal(result)


FORMS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "training": training,
    "evaluation": evaluation,
    "prediction": prediction,
    "inspection": inspection,
    "comparison": comparison,
}
