"""Results as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pseudolabel.console import duration, escape


def percent(value: float | None) -> str:
    """A share as a figure with one decimal, `-` where it is undefined."""
    return "-" if value is None else f"{100 * value:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their heads: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


def evaluation(result: Mapping[str, Any]) -> str:
    """Result of `pl evaluate`, `seg evaluate` or `pl train`."""
    if "miou" not in result:
        return classifier(result)
    keys = ("miou", "dr_recall", "ndr_recall", "fg_precision", "fg_recall", "fg_hit", "coverage")
    shown = [key for key in keys if key in result]
    lines = [
        f"{result['images']} images, mean over {result['classes_averaged']} classes, in %",
        *_scored(result),
        table(list(shown), [[percent(result[key]) for key in shown]]),
        "",
        table(["class", "IoU"], [[name, percent(value)] for name, value in result["iou"].items()]),
    ]
    if result.get("parts"):
        part, body = (percent(result["parts"][f"{what}_recall"]) for what in ("part", "body"))
        lines += ["", f"recall on the parts that tell the class {part}, on the bodies {body}"]
    return "\n".join(lines)


def _scored(result: Mapping[str, Any]) -> list[str]:
    """What was scored: the list, its labels, the checkpoint; and a warning about training images."""
    lines = []
    if result.get("reader"):
        split = f", split {result['split']}" if result.get("split") else ""
        listed = result.get("image_list", {}).get("listed")
        of = "" if listed in (None, result["images"]) else f", of {listed} listed"
        lines.append(f"scored: {result['reader']}{split}{of}")
    if result.get("labels"):
        lines.append(labels(result))
    if result.get("training_images"):
        lines.append(
            f"{result['training_images']} of these images were trained on: no score on unseen images"
        )
    return lines


def classifier(result: Mapping[str, Any]) -> str:
    """Result of `pl train`."""
    shown = f"\n{labels(result)}" if result.get("labels") else ""
    if result.get("map") is None:
        return "trained; no validation data" + shown
    positives = result.get("positives", {})
    rows = [[name, percent(value), str(positives.get(name, ""))] for name, value in result["ap"].items()]
    head = f"{result['images']} validation images, mAP {percent(result['map'])} %"
    return f"{head}{shown}\n{table(['class', 'AP', 'images'], rows)}"


def labels(result: Mapping[str, Any]) -> str:
    """Where the image labels of a result came from."""
    by = result.get("labels_from")
    return f"labels: {result['labels']}" + (f" ({by})" if by else "")


def summary(result: Mapping[str, Any]) -> str:
    """Result of `pl generate` or `pl refine`."""
    line = f"{result.get('images', 0)} masks"
    if result.get("images_per_second"):
        line += f", {result['images_per_second']:.2f} images a second"
    if result.get("device"):
        line += f", on {result['device']}"
    if result.get("failed"):
        line += f"; {result['failed']} not done, see problems.jsonl"
    if result.get("labels"):
        line += f"\n{labels(result)}"
    notes = [
        f"{result[key]} images {what}"
        for key, what in (
            ("nothing_found", "with nothing found: no pixel of their classes"),
            ("flat_maps", "with a flat map: a class has the same score everywhere"),
        )
        if result.get(key)
    ]
    return "\n".join([line, *(f"{note}; see problems.jsonl" for note in notes)])


def preview(result: Mapping[str, Any]) -> str:
    """Result of `pl preview`."""
    rows = [
        [
            escape(entry["id"]),
            escape(", ".join(entry["labels"])),
            percent(entry["miou"]),
            f"{entry['seconds']:.2f}",
            escape(entry["fault"] or ""),
        ]
        for entry in result["shown"]
    ]
    text = table(["image", "classes", "mIoU %", "seconds", ""], rows)
    if result["seconds_per_image"] is not None:
        took = duration(result["estimate_seconds"])
        text += f"\n{result['listed']} images, one after the other: {took}, on {result['device']}"
    return text + f"\n{escape(result['run'])}/preview.png"


def sweep(result: Mapping[str, Any]) -> str:
    """Result of `pl sweep`."""
    keys = ["miou", "dr_recall", "ndr_recall", "fg_precision"]
    best = result["best"]
    rows = [
        [f"{row['threshold']:g}{' *' if row['threshold'] == best['threshold'] else ''}"]
        + [percent(row.get(key)) for key in keys]
        for row in result["rows"]
    ]
    head = f"{result['images']} images of split {result.get('split')!r}; * best mIoU, picked on their masks"
    text = f"{head}\n{table(['threshold', *keys], rows)}"
    return f"{text}\n\n{_picks(result['picks'])}" if result.get("picks") else text


def _picks(picks: Sequence[Mapping[str, Any]]) -> str:
    """Thresholds by where they come from: mIoU on images that had no say in it, and what is left to gain."""
    rows = [
        [
            escape(f"{row['rule']}, {row['on']}"),
            "-" if row["threshold"] is None else f"{row['threshold']:g}",
            percent(row["miou"]),
            "-" if row["interval"] is None else " to ".join(percent(end) for end in row["interval"]),
            percent(row["gap"]),
        ]
        for row in picks
    ]
    return table(["picked by", "threshold", "miou", "interval of 95 %", "gap to the best"], rows)


def methods(result: Mapping[str, Any]) -> str:
    """Every component, by kind."""
    parts = []
    for kind, components in result.items():
        parts.append(kind)
        for name, entry in components.items():
            parts.append(f"  {name:<20} {entry['summary']}")
            parts += [f"  {'':<20}   {line}" for line in entry["formula"].splitlines()]
            if entry["source"]:
                parts.append(f"  {'':<20}   source: {entry['source']}")
    return "\n".join(parts)


def method(result: Mapping[str, Any]) -> str:
    """One component with its parameters."""
    parts = []
    for name, entry in result.items():
        parts += [name, f"  {entry['summary']}"]
        parts += [f"    {line}" for line in entry["formula"].splitlines()]
        parts += [f"  source: {entry['source']}"] if entry["source"] else []
        if entry["takes"]:
            parts.append(
                f"  takes {entry['takes']} scores, gives {entry['gives']}; runs on: {entry['device']}"
            )
        for key, p in entry["parameters"].items():
            bounds = "".join(f", {word} {value}" for word, value in p["bounds"].items())
            unit = "" if p["unit"] in ("no unit", "none") else f" [{p['unit']}]"
            parts.append(f"  {key} = {p['default']}{bounds}{unit}: {p['help']}")
    return "\n".join(parts)


def document(result: Mapping[str, Any]) -> str:
    """Any other result: a line a key."""
    return "\n".join(
        f"{key}: {value}" for key, value in result.items() if not isinstance(value, (dict, list))
    )


FORMS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "evaluation": evaluation,
    "summary": summary,
    "preview": preview,
    "sweep": sweep,
    "methods": methods,
    "method": method,
    "reference": document,
    "export": document,
}
