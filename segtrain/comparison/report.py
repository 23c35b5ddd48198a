"""comparison.json, comparison.md, images.png and report.html, one page that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from pseudolabel import console, images, masks
from pseudolabel.figures.contact_sheet import contact_sheet
from pseudolabel.figures.overlays import overlay
from pseudolabel.figures.text import percent
from pseudolabel.records import ImageRecord, MaskSource
from pseudolabel.runs import disk, layout
from segtrain.comparison import charts, table
from segtrain.comparison.plan import ComparisonPlan
from segtrain.comparison.stages import Outcome, Results

TEMPLATE = "report.html.j2"
LONG_SIDE = 260  # pixels of an image on the page, about twice what it is shown at
QUALITY = 82  # of its JPEG
STRENGTH = 0.6  # of a mask's colour
ImageArray = NDArray[np.uint8]


@dataclass(frozen=True)
class Strip:
    """An image and the ways to see it, one a column; None where there is none."""

    name: str
    classes: tuple[tuple[str, str], ...]
    images: tuple[ImageArray | None, ...]


def write(plan: ComparisonPlan, results: Results, folder: Path) -> dict[str, Any]:
    """Write a comparison up.

    Args:
        plan: what was compared.
        results: what came of it.
        folder: DIR.

    Returns:
        What comparison.json holds.
    """
    comparison = table.document(plan, results)
    disk.write_json(folder / "comparison.json", comparison)
    disk.write_text(folder / "comparison.md", table.markdown(comparison))
    heads, strips = _strips(comparison, results)
    if strips:
        captions = [f"{strip.name}: {', '.join(name for name, _ in strip.classes)}" for strip in strips]
        sheet = contact_sheet([strip.images for strip in strips], heads, captions)
        images.write_image(folder / "images.png", sheet)
    disk.write_text(folder / "report.html", page(comparison, heads, strips))
    return comparison


def page(comparison: Mapping[str, Any], heads: list[str], strips: list[Strip]) -> str:
    """The page as HTML; every name in it is escaped and it loads nothing from anywhere.

    Args:
        comparison: what comparison.json holds.
        heads: titles of the columns of images.
        strips: the images.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["held"] = _held
    split, trained = comparison["splits"]["report"]["name"], comparison["splits"]["train"]["name"]
    curves = charts.thresholds(comparison["candidates"], trained)
    return environment.get_template(TEMPLATE).render(
        comparison=comparison,
        rows=_cells(comparison),
        columns=[title for title, _ in table.columns(comparison)],
        paint=charts.colours(comparison["candidates"]),
        bars=_uri("image/svg+xml", charts.scores(comparison["candidates"]).encode()),
        curves=None if curves is None else _uri("image/svg+xml", curves.encode()),
        split=split,
        trained=trained,
        per_class=_per_class(comparison),
        heads=heads,
        strips=[
            {
                "name": strip.name,
                "classes": strip.classes,
                "images": [
                    None if image is None else _uri("image/jpeg", _jpeg(image)) for image in strip.images
                ],
            }
            for strip in strips
        ],
        recipes={name: _flat(recipe) for name, recipe in comparison["recipes"].items()},
    )


def _shown(value: Any) -> Any:
    """What stands on the page for a value: of a text, what does not print (controls, bidi marks) is escaped.

    A right-to-left mark in a name would turn the figures around that follow it.
    """
    return value if not isinstance(value, str) or isinstance(value, Markup) else console.escape(value)


def _held(sentence: str) -> Markup:
    """A sentence whose figures stay on one line with their sign."""
    return Markup(str(escape(console.escape(sentence))).replace(" %", "&nbsp;%"))


def _cells(comparison: Mapping[str, Any]) -> list[list[tuple[str, bool]]]:
    """The table's rows: text and whether it is the best of its column, ground truth aside."""
    head = table.columns(comparison)
    rows = [[cell(row) for _, cell in head] for row in comparison["candidates"]]
    ranked = [index for index, row in enumerate(comparison["candidates"]) if row["kind"] != "truth"]
    marked: list[list[tuple[str, bool]]] = [[(text, False) for text in row] for row in rows]
    for column, (title, _) in enumerate(head):
        if title in ("training masks", "threshold") or len(ranked) < 2:
            continue
        known = {index: float(rows[index][column]) for index in ranked if rows[index][column] != "-"}
        if len(set(known.values())) < 2:
            continue  # nothing to be best of
        best = min(known.values()) if title == "s/image" else max(known.values())
        for index, value in known.items():
            marked[index][column] = (rows[index][column], value == best)
    return marked


def _per_class(comparison: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """IoU of the networks by class, of the classes that any of them has."""
    ious = [row["network"]["iou"] or {} for row in comparison["candidates"]]
    lines = [(name, [percent(iou.get(name)) for iou in ious]) for name in comparison["classes"]]
    return [(name, cells) for name, cells in lines if any(cell != "-" for cell in cells)]


def _strips(comparison: Mapping[str, Any], results: Results) -> tuple[list[str], list[Strip]]:
    """Heads and images: image, truth, each candidate's mask, each trained network."""
    outcomes = [outcome for outcome in results.outcomes if "report" in outcome.folders]
    heads = ["image", "ground truth"]
    heads += [f"masks: {outcome.plan.name}" for outcome in outcomes]
    heads += [f"network on {outcome.plan.name}" for outcome in results.outcomes]
    records = {record.id: record for record in results.report.records}
    strips = [_strip(records[name], comparison, results, outcomes) for name in results.shown]
    return heads, strips


def _strip(
    record: ImageRecord, comparison: Mapping[str, Any], results: Results, outcomes: list[Outcome]
) -> Strip:
    image = images.read_image(record.image)
    files: list[Path | MaskSource | None] = [record.mask]
    files += [outcome.folders["report"] / layout.mask_file(record.id) for outcome in outcomes]
    files += [outcome.predictions.get(record.id) for outcome in results.outcomes]
    input_images: list[ImageArray | None] = [_small(image)]
    for file in files:
        gone = file is None or (isinstance(file, Path) and not file.is_file())
        input_images.append(None if gone or file is None else _laid(image, masks.read_mask(file)))
    names = comparison["classes"]
    classes = tuple((names[c], _hex(c)) for c in record.labels or ())
    return Strip(record.id, classes, tuple(input_images))


def _laid(image: ImageArray, mask: ImageArray) -> ImageArray | None:
    if mask.shape != image.shape[:2]:
        return None
    grey = image.mean(axis=2, keepdims=True)  # colours of the mask stand out from a faded image
    faded = (0.35 * image + 0.4 * grey + 0.25 * 255).astype(np.uint8)
    return _small(overlay(faded, mask, STRENGTH))


def _small(image: ImageArray) -> ImageArray:
    from PIL import Image

    scale = min(1.0, LONG_SIDE / max(image.shape[:2]))
    if scale == 1.0:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), dtype=np.uint8)


def _jpeg(image: ImageArray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def _uri(kind: str, data: bytes) -> Markup:
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode()}")  # letters that need no escape


def _hex(class_id: int) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in masks.PALETTE[class_id])


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A recipe as dotted keys and values."""
    if isinstance(value, Mapping) and value:
        pairs = [_flat(inner, f"{prefix}.{key}" if prefix else str(key)) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, (Mapping, list)) for inner in value):
        pairs = [_flat(inner, f"{prefix}.{index}") for index, inner in enumerate(value)]
    else:
        return [(prefix, "null" if value is None else str(value))]
    return [pair for inner in pairs for pair in inner]
