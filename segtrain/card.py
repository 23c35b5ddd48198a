"""MODEL_CARD.md: what a trained network is, what it was trained on and how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pseudolabel.recipes.yaml import dump_recipe
from segtrain.checkpoint import Header
from segtrain.inspection import Inspection
from segtrain.recipe import SegRecipe


def write_card(
    recipe: SegRecipe,
    header: Header,
    taken: str,
    inspection: Inspection,
    history: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str | None] | None = None,
) -> str:
    """The card as Markdown; no path, host or time, so that the same training writes the same card.

    `labels` has `labels` and `labels_from` of the run that made the masks, or is None.
    """
    network, names = header.architecture, header.space.names
    masks = "the data's own masks" if recipe.masks is None else "pseudo-masks"
    last = history[-1] if history else {}
    scored = last.get("miou") is not None
    lines = [
        f"# {network.decoder} with {network.encoder}, {len(names)} classes",
        "",
        f"Trained by `seg train` on {inspection.looked_at} images with {masks} "
        f"({len(inspection.background)} of them background only, {len(inspection.ignored)} ignored whole), "
        f"{recipe.schedule.epochs} epochs of batch {recipe.schedule.batch}.",
        "",
        "| | |",
        "| --- | --- |",
        "| input | RGB 0..255, any size from 1 x 1 |",
        f"| normalisation | (x / 255 - {_triple(network.mean)}) / {_triple(network.std)}, done inside |",
        f"| masks | {masks} |",
        *([] if recipe.masks is None else [f"| {_labels(labels or {})} |"]),
        f"| output stride | {network.output_stride} |",
        f"| {taken.partition(':')[0]} | {taken.partition(': ')[2]} |",
        f"| last epoch | {last.get('epoch', 'none')}, training loss {_number(last.get('loss'))} |",
        f"| validation mIoU | {_number(last.get('miou'))} over {last.get('classes_averaged', 0)} classes, "
        f"{last.get('images', 0)} images |",
        "",
        "## Classes",
        "",
        "| id | class | training pixels | " + ("validation IoU |" if scored else ""),
        "| --- | --- | --- | " + ("--- |" if scored else ""),
        *(
            f"| {index} | {_cell(name)} | {int(inspection.pixels[index])} | "
            + (f"{_number(last['iou'].get(name))} |" if scored else "")
            for index, name in enumerate(names)
        ),
        "",
        "## Limits",
        "",
        "Trained for these classes and for images like the training images alone. Where the masks are "
        "pseudo-masks, their faults are learnt with them: a class that always comes with another thing "
        "may take it along.",
        "",
        "## Recipe",
        "",
        "```yaml",
        *_settings(recipe),
        "```",
        "",
    ]
    return "\n".join(lines)


def _settings(recipe: SegRecipe) -> list[str]:
    """The recipe as YAML without the sections that hold paths of the machine."""
    lines, section = [], ""
    for line in dump_recipe(recipe).rstrip().splitlines():
        section = section if line.startswith((" ", "-")) else line.partition(":")[0]
        if section not in ("data", "masks", "validation"):
            lines.append(line)
    return lines


def _labels(labels: Mapping[str, str | None]) -> str:
    by = f" ({labels['labels_from']})" if labels.get("labels_from") else ""
    return f"image labels of the pseudo-masks | labels: {labels.get('labels') or 'not known'}{by}"


def _triple(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _cell(name: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\|`*_<[" else letter for letter in name)
