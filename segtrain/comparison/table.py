"""A comparison as figures and sentences: what comparison.json and comparison.md hold."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pseudolabel import __version__, console
from pseudolabel.figures.text import percent, table
from pseudolabel.recipes.loading import plain_data
from pseudolabel.recipes.steps import ReaderStep
from segtrain.comparison.plan import ComparisonPlan
from segtrain.comparison.stages import Outcome, Results

FIGURES = (
    "images", "miou", "miou_interval", "classes_averaged", "dr_recall", "ndr_recall", "fg_precision",
    "fg_recall", "fg_hit", "coverage", "parts", "iou",
)  # fmt: skip
NAMED = 3  # candidates named in a sentence beside the first
LONGEST = 60  # letters of a name in a sentence
PICKED = {
    "train": "best mIoU on the training split, whose masks it sees: not weak supervision",
    "recipe": "the recipe's own",
}


def document(plan: ComparisonPlan, results: Results) -> dict[str, Any]:
    """A comparison as JSON; undefined figures are None, nothing in it tells where it was made."""
    truth = next((outcome for outcome in results.outcomes if outcome.plan.truth), None)
    best = truth.network["miou"] if truth is not None else None
    rows = [_row(plan, outcome, best) for outcome in results.outcomes]
    content = {
        "candidates": rows,
        "classes": list(results.train.space.names),
        "average_over": list(plan.recipe.average_over) if plan.recipe.average_over else None,
        "splits": {
            "train": {"name": split_name(plan.train_data, "train"), "images": len(results.train.records)},
            "report": {"name": split_name(plan.report_data, "report"), "images": len(results.report.records)},
        },
        "data": _unplaced(plain_data(plan.report_data)),
        "classifier": _classifier(results),
        "references": {
            split: {**_unplaced(description), "threshold": 0.25, "rule": "own", **_of_reference(rows, split)}
            for split, description in results.references.items()
        },
        "recipes": {
            "segmentation": _unplaced(plain_data(plan.segmentation)),
            **{
                outcome.plan.name: _unplaced(plain_data(outcome.plan.generate["train"]))
                for outcome in results.outcomes
                if outcome.plan.generate
            },
        },
        "versions": _versions(),
    }
    return {"verdict": verdict(content), **content}


def verdict(comparison: Mapping[str, Any]) -> list[str]:
    """What the figures say, in sentences."""
    split = comparison["splits"]["report"]["name"]
    trained = [
        row
        for row in comparison["candidates"]
        if row["kind"] != "truth" and row["network"]["miou"] is not None
    ]
    if not trained:
        return ["Only the ground truth was trained on; add a candidate to compare it with."]
    trained.sort(key=lambda row: -row["network"]["miou"])
    best, others = trained[0], trained[1:]
    said = f"The network trained on {_name(best)} reaches {_miou(best)} mIoU on {split}"
    if others:
        said += ", against " + _listed([f"{_miou(row)} on {_name(row)}" for row in others])
    truth = next((row for row in comparison["candidates"] if row["kind"] == "truth"), None)
    if truth is not None and best["share"] is not None:
        said += f"; that is {percent(best['share'])} % of the {_miou(truth)} that the ground truth gives"
    sentences = [said + "."]
    scored = [row for row in trained if row["report"] is not None]
    for key, what in (("ndr_recall", "non-discriminative"), ("dr_recall", "discriminative")):
        ranked = [row for row in scored if row["report"][key] is not None]
        ranked.sort(key=lambda row: -row["report"][key])
        if len(ranked) > 1:
            sentences.append(
                f"Of the {what} regions the masks of {_name(ranked[0])} recover the most, "
                f"{percent(ranked[0]['report'][key])} % ("
                + _listed([f"{_name(row)} {percent(row['report'][key])} %" for row in ranked[1:]])
                + ")."
            )
    if comparison["candidates"] and any(
        row["threshold_picked"] == PICKED["train"] for row in comparison["candidates"]
    ):
        name = comparison["splits"]["train"]["name"]
        sentences.append(
            f"Thresholds were picked on {name} by looking at its masks, which weak supervision does not have."
        )
    return sentences


def markdown(comparison: Mapping[str, Any]) -> str:
    """The comparison as a page of markdown."""
    split, trained = (comparison["splits"][name] for name in ("report", "train"))
    classes = comparison["average_over"]
    over = ", ".join(classes) if classes else f"all {len(comparison['classes'])} classes"
    head = columns(comparison)
    lines = [
        "# Comparison",
        "",
        *(_plain_text(sentence) for sentence in comparison["verdict"]),
        "",
        "| " + " | ".join(title for title, _ in head) + " |",
        "| --- |" + " ---: |" * (len(head) - 1),
        *(
            "| " + " | ".join(_plain_text(cell(row)) for _, cell in head) + " |"
            for row in comparison["candidates"]
        ),
        "",
        f"In %. Masks are scored on {_plain_text(split['name'])} ({split['images']} images); networks are "
        f"trained on {_plain_text(trained['name'])} ({trained['images']}) and scored on "
        f"{_plain_text(split['name'])}. Means over {_plain_text(over)}. DR and NDR: where the single-scale "
        "CAM of the classifier exceeds 0.25 of its maximum, and the rest of each object.",
        "",
    ]
    return "\n".join(lines)


def terminal(comparison: Mapping[str, Any]) -> str:
    """The comparison for a terminal; what does not print is escaped."""
    head = columns(comparison)
    rows = [[console.escape(cell(row)) for _, cell in head] for row in comparison["candidates"]]
    split = console.escape(comparison["splits"]["report"]["name"])
    lines = [
        f"On {split}, {comparison['splits']['report']['images']} images, in %:",
        "",
        table([title for title, _ in head], rows),
        "",
        *(console.escape(sentence) for sentence in comparison["verdict"]),
    ]
    if "run" in comparison:
        lines += ["", f"Report: {console.escape(comparison['run'])}/report.html"]
    return "\n".join(lines)


def columns(comparison: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Titles of the table with what makes a row's cell; columns that nobody fills are left out."""

    def figure(key: str) -> Any:
        return lambda row: percent((row["report"] or {}).get(key))

    def part(key: str) -> Any:
        return lambda row: percent(((row["report"] or {}).get("parts") or {}).get(key))

    head: list[tuple[str, Any]] = [
        ("training masks", lambda row: row["name"]),
        ("threshold", lambda row: "-" if row["threshold"] is None else f"{row['threshold']:g}"),
        ("mask mIoU", figure("miou")),
        ("DR-recall", figure("dr_recall")),
        ("NDR-recall", figure("ndr_recall")),
        ("FG-precision", figure("fg_precision")),
        ("part recall", part("part_recall")),
        ("body recall", part("body_recall")),
        ("s/image", lambda row: "-" if row["seconds_per_image"] is None else _seconds(row)),
        ("network mIoU", lambda row: percent(row["network"]["miou"])),
        ("of ground truth", lambda row: percent(row["share"])),
    ]
    return [
        (title, cell)
        for title, cell in head
        if title in ("training masks", "network mIoU")
        or any(cell(row) != "-" for row in comparison["candidates"])
    ]


def split_name(step: ReaderStep, otherwise: str) -> str:
    """The split that a reader reads, or another word where it has none."""
    return str(step.parameters().get("split") or otherwise)


def _row(plan: ComparisonPlan, outcome: Outcome, truth: float | None) -> dict[str, Any]:
    candidate, network = outcome.plan, outcome.network
    kind = "truth" if candidate.truth else "recipe" if candidate.generate else "masks"
    miou = network["miou"]
    return {
        "name": candidate.name,
        "kind": kind,
        "recipe": candidate.recipe,
        "threshold": outcome.threshold,
        "threshold_key": None if candidate.swept is None else f"background.{candidate.swept}",
        "threshold_picked": PICKED[plan.recipe.threshold] if outcome.threshold is not None else None,
        "held_out": outcome.sweep["held_out"] if outcome.sweep else None,
        "seconds_per_image": outcome.seconds,
        "train": _figures(outcome.masks["train"]),
        "report": _figures(outcome.masks["report"]),
        "sweep": [
            {key: row[key] for key in ("threshold", "miou", "dr_recall", "ndr_recall", "fg_precision")}
            for row in (outcome.sweep or {"rows": []})["rows"]
        ],
        "network": {
            **{key: network.get(key) for key in ("images", "miou", "classes_averaged", "iou")},
            "epochs": outcome.training.epochs,
            "checkpoint": network.get("checkpoint"),
        },
        "share": miou / truth if truth and miou is not None else None,
    }


def _figures(evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    kept = {key: evaluation.get(key) for key in FIGURES}
    return {**kept, "reference": _unplaced(evaluation["reference"]) if evaluation.get("reference") else None}


def _of_reference(rows: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any]:
    """What an evaluation recorded of the reference of a split."""
    for row in rows:
        if row[split] and row[split]["reference"]:
            return dict(row[split]["reference"])
    return {}


def _classifier(results: Results) -> dict[str, Any] | None:
    if results.classifier is None:
        return None
    plain = results.classifier.as_dict()
    return {key: plain[key] for key in ("images", "map", "ap", "epochs")}


def _unplaced(value: Any) -> Any:
    """The same data without folders: of a path only its last name stays."""
    if isinstance(value, Mapping):
        return {key: _unplaced(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_unplaced(inner) for inner in value]
    if isinstance(value, str) and re.match(r"~|/|\\\\|[A-Za-z]:[\\/]|\.\.[\\/]", value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def _versions() -> dict[str, str]:
    import torch

    return {"pseudolabel": __version__, "python": platform.python_version(), "torch": torch.__version__}


def _miou(row: Mapping[str, Any]) -> str:
    return f"{percent(row['network']['miou'])} %"


def _name(row: Mapping[str, Any]) -> str:
    name = str(row["name"])
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _listed(parts: Sequence[str]) -> str:
    if len(parts) > NAMED:
        parts = [*parts[:NAMED], f"{len(parts) - NAMED} more"]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _seconds(row: Mapping[str, Any]) -> str:
    return f"{row['seconds_per_image']:.2g}"


def _plain_text(text: str) -> str:
    """Foreign text in a cell of markdown: no cell ends, no markup, no line breaks."""
    one_line = console.escape(" ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]<>|#!$~])", r"\\\1", one_line)
