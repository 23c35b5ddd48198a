"""The page and the picture of the experiment on post-processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from scripts.experiments import charts
from scripts.experiments.pages import between, commands, percent, points, table
from scripts.experiments.results import Experiment

NAME = "postprocessing"
COLOURS = ("#1b4f72", "#5dade2", "#7d6608", "#f1c40f", "#117a65", "#c0392b", "#8e44ad")
FIGURES = {"miou": "mIoU", "ndr_recall": "NDR-recall", "fg_precision": "FG-precision"}
Rows = Mapping[tuple[str, str], Mapping[str, Any]]


def page(result: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    kinds, rows, posts = _parts(result)
    matrix = [[title, *(_short(rows.get((name, post))) for post in posts)] for name, title in kinds.items()]
    head = ["maps", "post-processing", "threshold", "mIoU", "interval", "NDR-recall", "interval"]
    head += ["DR-recall", "FG-precision", "interval", "best threshold's mIoU"]
    ranked = sorted(rows.values(), key=lambda row: -row["miou"])
    parts = [
        "# From maps to masks: what each step is worth\n",
        commands(NAME, result),
        _about(result) + "\n",
        "## The answers\n",
        "\n".join(f"- {_sentence(entry, kinds)}" for entry in result["differences"] if _decides(entry))
        + "\n",
        "![mIoU against NDR-recall; mIoU by step](postprocessing.png)\n",
        *_networks(result, kinds),
        "## mIoU / NDR-recall / FG-precision (%)\n",
        table(["maps", *posts], matrix) + "\n",
        "## Every row\n",
        table(head, [_row(row, kinds) for row in ranked]) + "\n",
        "## Paired differences (points, 95 % interval)\n",
        table(["of", "over", *FIGURES.values()], [_difference(e, kinds) for e in result["differences"]])
        + "\n",
    ]
    return "\n".join(parts)


def _parts(result: Mapping[str, Any]) -> tuple[dict[str, str], Rows, list[str]]:
    """Titles of kinds, rows by maps and post-processing, names of post-processing."""
    kinds = {kind["name"]: kind["title"] for kind in result["kinds"]}
    rows = {(row["maps"], row["post"]): row for row in result["rows"]}
    return kinds, rows, list(dict.fromkeys(post for _, post in rows))


def _about(result: Mapping[str, Any]) -> str:
    """Images, thresholds, intervals, DR and NDR."""
    fewest = min(int(row["images_picked"]) for row in result["rows"])
    tried = min(len(row["curve"]["thresholds"]) for row in result["rows"])
    return (
        f"{result['images']} images of `val`. Thresholds were picked on the first {result['images_picked']} "
        f"images of `train`; before a CRF on {fewest} of them, at {tried} multiples of the best threshold "
        f"without it. Means over {', '.join(result['averaged_over'])}. Intervals: 95 %, bootstrap over "
        f"images at the picked threshold.{_cost_of_picking(result)}\n"
        "DR are the discriminative and NDR the non-discriminative regions of a class: "
        f"{result['reference']}. CAM's own NDR-recall is small by that definition wherever its "
        "threshold comes near 0.25. The settings of the walk and the weights of mixes were chosen on "
        "`train`, the weights with `val` in sight; the settings of the CRF are IRN's. Blank cells were not "
        "measured."
    )


def _cost_of_picking(result: Mapping[str, Any]) -> str:
    """mIoU lost by picking on other images against the best threshold of the same ones."""
    lost = [row["oracle"] - row["miou"] for row in result["rows"] if row["oracle"] is not None]
    if not lost:
        return ""
    return (
        f" Picking on other images costs {100 * sum(lost) / len(lost):.1f} points of mIoU on average "
        f"and {100 * max(lost):.1f} at most (rows without a CRF)."
    )


def _networks(result: Mapping[str, Any], kinds: Mapping[str, str]) -> list[str]:
    """The mIoU of networks that were trained on the masks."""
    if not result["networks"]:
        return []
    first = result["networks"][0]
    rows = [[kinds[run["maps"]], run["post"], percent(run["miou"])] for run in result["networks"]]
    return [
        "## A network trained on the masks\n",
        f"One DeepLab each, {first['epoch']} epochs on {first['images']} images of `train`, seed "
        f"{first['seed']}; mIoU on `val` (%). One seed gives no interval; a difference of a point or two "
        "means nothing. Masks come from `pl refine` on the kept maps, at the thresholds below, over a list "
        f"of the first {first['images']} of `train`; networks from `seg train configs/voc/segmentation.yaml "
        f"--set masks=MASKS --set schedule.epochs={first['epoch']} --set data.split=LIST`.\n",
        table(["maps", "post-processing", "network's mIoU"], rows) + "\n",
    ]


def _decides(entry: Mapping[str, Any]) -> bool:
    """Differences between kinds, between steps, and what a step alone adds to CAM and to crops."""
    (kind, post), (other, before) = entry["of"], entry["over"]
    alone = kind in ("cam", "crops") and post in ("superpixel background", "CRF", "box", "longer walk")
    return bool(kind != other or before != "none" or alone)


def _name(key: Sequence[str], kinds: Mapping[str, str]) -> str:
    name, post = key
    return kinds[name] if post == "none" else f"{kinds[name]} + {post}"


def _sentence(entry: Mapping[str, Any], kinds: Mapping[str, str]) -> str:
    gains = ", ".join(f"{title} {points(entry[key])}" for key, title in FIGURES.items())
    return f"{_name(entry['of'], kinds)} against {_name(entry['over'], kinds)}: {gains} points."


def _difference(entry: Mapping[str, Any], kinds: Mapping[str, str]) -> list[str]:
    names = [_name(entry[key], kinds) for key in ("of", "over")]
    return [*names, *(points(entry[key]) for key in FIGURES)]


def _short(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return " / ".join(percent(row[key]) for key in FIGURES)


def _row(row: Mapping[str, Any], kinds: Mapping[str, str]) -> list[str]:
    ends = row["intervals"]
    cells = [kinds[row["maps"]], row["post"], f"{row['threshold']:g}"]
    cells += [percent(row["miou"]), between(ends["miou"])]
    cells += [percent(row["ndr_recall"]), between(ends["ndr_recall"]), percent(row["dr_recall"])]
    cells += [percent(row["fg_precision"]), between(ends["fg_precision"]), percent(row["oracle"])]
    return cells


def figure(result: Mapping[str, Any]) -> bytes:
    """Left: mIoU over NDR-recall, thresholds along each curve. Right: mIoU of every step, with intervals."""
    kinds, rows, posts = _parts(result)
    figure = charts.canvas(15, 6.4, dpi=130)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(kinds)}
    _curves(left, kinds, rows, colours)
    _steps(right, list(kinds), rows, posts, colours)
    return charts.png(figure)


def _is_mix(name: str) -> bool:
    return "+" in name or name == "three"


def _curves(axes: Axes, kinds: Mapping[str, str], rows: Rows, colours: Mapping[str, str]) -> None:
    for name, title in kinds.items():
        row = rows.get((name, "none"))
        if row is None:
            continue
        across, up = ([100 * value for value in row["curve"][key]] for key in ("ndr_recall", "miou"))
        axes.plot(across, up, "--" if _is_mix(name) else "-", color=colours[name], label=title)
        axes.plot(100 * row["ndr_recall"], 100 * row["miou"], "o", color=colours[name], markersize=5)
    axes.set_xlabel("NDR-recall (%)")
    axes.set_ylabel("mIoU (%)")
    axes.set_title("no post-processing: every threshold; dot: the one picked on train", fontsize=10)
    axes.legend(fontsize=7.5, frameon=False)


def _steps(
    axes: Axes, kinds: Sequence[str], rows: Rows, posts: Sequence[str], colours: Mapping[str, str]
) -> None:
    width = 0.8 / max(1, len(kinds))
    for index, name in enumerate(kinds):
        measured = [(place, rows[name, post]) for place, post in enumerate(posts) if (name, post) in rows]
        at = [place - 0.4 + (index + 0.5) * width for place, _ in measured]
        middle = [100 * row["miou"] for _, row in measured]
        ends = [[100 * bound for bound in row["intervals"]["miou"]] for _, row in measured]
        below = [value - low for value, (low, _) in zip(middle, ends, strict=True)]
        above = [high - value for value, (_, high) in zip(middle, ends, strict=True)]
        marker = "D" if _is_mix(name) else "o"
        colour = colours[name]
        axes.errorbar(at, middle, [below, above], fmt=marker, color=colour, markersize=3.5, linewidth=0.9)
    axes.set_xticks(range(len(posts)), posts, rotation=35, ha="right", fontsize=8)
    for place in range(1, len(posts)):
        axes.axvline(place - 0.5, color="#e5e7e9", linewidth=0.8)
    axes.set_ylabel("mIoU on val (%)")
    axes.set_title("every step, thresholds picked on train, 95 % intervals (same colours)", fontsize=10)


def main(words: Sequence[str] | None = None) -> None:
    """Write the page and the picture from the JSON file."""
    Experiment(NAME, words).report(__doc__, page, figure)


if __name__ == "__main__":
    main()
