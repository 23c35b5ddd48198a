"""What bf16 costs and brings: masks of the same recipe in float32 and in bf16, compared.

    python scripts/compare_precision.py configs/voc/cam.yaml configs/voc/saliency.yaml
        --set data.root=VOC2012 --set data.split=val -o docs/results/bf16.json

For each recipe: share of pixels whose class differs, mIoU of both, images a second of both.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import command, machine, say

import pseudolabel
from pseudolabel import masks
from pseudolabel.runs import disk

KINDS = ("float32", "bf16")


def main() -> None:
    """Run every recipe twice and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipes", type=Path, nargs="+")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--average-over", type=lambda text: text.split(","), default=None)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    found = {recipe.stem: _compared(recipe, given) for recipe in given.recipes}
    result = {"command": command(), **machine(), "recipes": found}
    disk.write_json(given.out, result)
    disk.write_text(given.out.with_suffix(".md"), _page(result))


def _compared(recipe: Path, given: argparse.Namespace) -> dict[str, Any]:
    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for kind in KINDS:
            run = Path(temporary) / kind
            overrides = [*given.overrides, f"precision={kind}"]
            summary = pseudolabel.generate(
                recipe, run, overrides=overrides, device=given.device, limit=given.limit, quiet=True
            )
            scored = pseudolabel.evaluate(run, average_over=given.average_over, limit=given.limit, quiet=True)
            row[kind] = {"miou": scored.miou, "images_per_second": summary["images_per_second"]}
            row["images"] = scored.images
        pixels = different = 0
        for path in sorted((Path(temporary) / KINDS[0] / "masks").iterdir()):
            one, other = (masks.read_mask(Path(temporary) / kind / "masks" / path.name) for kind in KINDS)
            pixels += one.size
            different += int(np.count_nonzero(one != other))
    row["pixels that differ"] = different / pixels
    say(f"{recipe.stem}: {row}")
    return row


def _page(result: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = [
        "# bf16 against float32", "", f"`{result['command']}`", "",
        "| recipe | images | pixels that differ | mIoU float32 | bf16 | images/s float32 | bf16 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, row in result["recipes"].items():
        scores = " | ".join(f"{100 * row[kind]['miou']:.2f}" for kind in KINDS)
        paces = " | ".join(f"{row[kind]['images_per_second']:.2f}" for kind in KINDS)
        share = f"{100 * row['pixels that differ']:.2f} %"
        lines.append(f"| {name} | {row['images']} | {share} | {scores} | {paces} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
