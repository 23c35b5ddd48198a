"""The page and the image of the experiment on post-processing."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from _experiment import between, percent, table

COLOURS = ("#1b4f72", "#5dade2", "#7d6608", "#f1c40f", "#117a65", "#c0392b", "#8e44ad")
FIGURES = {"miou": "mIoU", "ndr_recall": "NDR-recall", "fg_precision": "FG-precision"}


def page(result: Mapping[str, Any]) -> str:
    """Everything in words and tables."""
    kinds, rows = result["kinds"], {(row["maps"], row["post"]): row for row in result["rows"]}
    posts = list(dict.fromkeys(post for _, post in rows))
    lines = [
        "# From maps to masks: what each step is worth", "", "```", result["command"], "```", "",
        f"{result['images']} images of `val`; thresholds picked on the first {result['images_picked']} of "
        f"`train`, before a CRF on {_fewest(result)} of them at {_tried(result)} multiples of the best one "
        f"without it. Means over {', '.join(result['averaged_over'])}. Intervals: 95 %, images drawn anew, "
        f"threshold kept. {_paid(result)}",
        f"DR and NDR: {result['reference']}. CAM's own NDR-recall is small by that definition wherever its "
        "threshold comes near 0.25. Settings of the walk and weights of mixes were chosen on `train`, "
        "the weights with `val` in sight; the CRF's settings are IRN's. Blank cells were not measured.",
        "", "## The answers", "",
        *(f"- {_sentence(one, kinds)}" for one in result["differences"] if _decides(one)), "",
        "![mIoU against NDR-recall; mIoU by step](postprocessing.png)", "",
        *_networks(result),
        "## mIoU / NDR-recall / FG-precision (%)", "",
        table(
            ["maps", *posts],
            [[title, *(_short(rows.get((name, post))) for post in posts)] for name, title in kinds.items()],
        ), "",
        "## Every row", "",
        table(
            ["maps", "post-processing", "threshold", "mIoU", "interval", "NDR-recall", "interval",
             "DR-recall", "FG-precision", "interval", "best threshold's mIoU"],
            [_row(row, kinds) for row in sorted(rows.values(), key=lambda row: -row["miou"])],
        ), "",
        "## Paired differences (points, 95 % interval)", "",
        table(
            ["of", "over", *FIGURES.values()],
            [[_name(one["of"], kinds), _name(one["over"], kinds),
              *(f"{100 * one[key]['gain']:+.1f} ({between(one[key]['interval'], sign=True)})"
                for key in FIGURES)] for one in result["differences"]],
        ), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _networks(result: Mapping[str, Any]) -> list[str]:
    """What a network learns from the masks."""
    if not result["networks"]:
        return []
    first = result["networks"][0]
    rows = [[result["kinds"][one["maps"]], one["post"], percent(one["miou"])] for one in result["networks"]]
    return [
        "## A network trained on the masks", "",
        f"One DeepLab each, {first['epoch']} epochs on {first['images']} images of `train`, seed "
        f"{first['seed']}; mIoU on `val` (%). One seed: no interval, and differences of a point or two say "
        "nothing. Masks by `pl refine` from the kept maps, at the thresholds below, over a list of the first "
        f"{first['images']} of `train`; networks by `seg train configs/voc/segmentation.yaml --set "
        f"masks=MASKS --set schedule.epochs={first['epoch']} --set data.split=LIST`.", "",
        table(["maps", "post-processing", "network's mIoU"], rows), "",
    ]  # fmt: skip


def _fewest(result: Mapping[str, Any]) -> int:
    return min(int(row["images_picked"]) for row in result["rows"])


def _tried(result: Mapping[str, Any]) -> int:
    return min(len(row["curve"]["thresholds"]) for row in result["rows"])


def _paid(result: Mapping[str, Any]) -> str:
    """What picking on other images costs against the best threshold of the same ones."""
    lost = [row["oracle"] - row["miou"] for row in result["rows"] if row["oracle"] is not None]
    if not lost:
        return ""
    return (
        f"Picking on other images costs {100 * sum(lost) / len(lost):.1f} points of mIoU on average "
        f"and {100 * max(lost):.1f} at most (rows without a CRF)."
    )


def _decides(one: Mapping[str, Any]) -> bool:
    """Differences between kinds, between steps, and what a step alone adds to CAM and to crops."""
    (kind, post), (other, before) = one["of"], one["over"]
    alone = kind in ("cam", "crops") and post in ("superpixel resolve", "CRF", "box", "longer walk")
    return bool(kind != other or before != "none" or alone)


def _name(key: tuple[str, str], kinds: Mapping[str, str]) -> str:
    name, post = key
    return kinds[name] if post == "none" else f"{kinds[name]} + {post}"


def _sentence(one: Mapping[str, Any], kinds: Mapping[str, str]) -> str:
    told = [
        f"{title} {100 * one[key]['gain']:+.1f} ({between(one[key]['interval'], sign=True)})"
        for key, title in FIGURES.items()
    ]
    return f"{_name(one['of'], kinds)} against {_name(one['over'], kinds)}: {', '.join(told)} points."


def _short(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return " / ".join(percent(row[key]) for key in FIGURES)


def _row(row: Mapping[str, Any], kinds: Mapping[str, str]) -> list[str]:
    ends = row["intervals"]
    return [
        kinds[row["maps"]], row["post"], f"{row['threshold']:g}",
        percent(row["miou"]), between(ends["miou"]),
        percent(row["ndr_recall"]), between(ends["ndr_recall"]),
        percent(row["dr_recall"]),
        percent(row["fg_precision"]), between(ends["fg_precision"]),
        percent(row["oracle"]),
    ]  # fmt: skip


def figure(result: Mapping[str, Any]) -> bytes:
    """Left: mIoU over NDR-recall, thresholds along each curve. Right: mIoU of every step, with intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds, rows = result["kinds"], {(row["maps"], row["post"]): row for row in result["rows"]}
    posts = list(dict.fromkeys(post for _, post in rows))
    whole = Figure(figsize=(15, 6.4), dpi=130, layout="constrained")
    FigureCanvasAgg(whole)
    left, right = whole.subplots(1, 2, width_ratios=(1, 1.5))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(kinds)}
    for name, title in kinds.items():
        dashed = "--" if "+" in name or name == "three" else "-"
        row = rows.get((name, "none"))
        if row is None:
            continue
        curve = row["curve"]
        left.plot(
            [100 * one for one in curve["ndr_recall"]],
            [100 * one for one in curve["miou"]],
            dashed,
            color=colours[name],
            label=title,
        )
        left.plot(100 * row["ndr_recall"], 100 * row["miou"], "o", color=colours[name], markersize=5)
    left.set_xlabel("NDR-recall (%)")
    left.set_ylabel("mIoU (%)")
    left.set_title("no post-processing: every threshold; dot: the one picked on train", fontsize=10)
    left.legend(fontsize=7.5, frameon=False)
    width = 0.8 / max(1, len(kinds))
    for index, name in enumerate(kinds):
        there = [(place, rows[name, post]) for place, post in enumerate(posts) if (name, post) in rows]
        at = [place - 0.4 + (index + 0.5) * width for place, _ in there]
        mid = [100 * row["miou"] for _, row in there]
        ends = [[100 * bound for bound in row["intervals"]["miou"]] for _, row in there]
        bars = [[m - low for m, (low, _) in zip(mid, ends, strict=True)],
                [high - m for m, (_, high) in zip(mid, ends, strict=True)]]  # fmt: skip
        marker = "D" if "+" in name or name == "three" else "o"
        right.errorbar(at, mid, bars, fmt=marker, color=colours[name], markersize=3.5, linewidth=0.9)
    right.set_xticks(range(len(posts)), posts, rotation=35, ha="right", fontsize=8)
    for place in range(1, len(posts)):
        right.axvline(place - 0.5, color="#e5e7e9", linewidth=0.8)
    right.set_ylabel("mIoU on val (%)")
    right.set_title("every step, thresholds picked on train, 95 % intervals (same colours)", fontsize=10)
    buffer = io.BytesIO()
    whole.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
