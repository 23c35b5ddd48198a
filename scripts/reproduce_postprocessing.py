"""Maps x post-processing on VOC: what smoothing, superpixels and a CRF add to CAM, to saliency and to crops.

    python scripts/reproduce_postprocessing.py --root VOC2012 --classifier runs/voc/classifier

Every cell is a recipe on stored maps. Its threshold is the one of the largest mIoU on the first images of
`train`; figures are of all images of `val`, with intervals from images drawn anew at that threshold.
Before a CRF the threshold is tried at some multiples of the best one without it, on fewer images, since a
CRF costs the most. DR and NDR come from the single-scale CAM of the classifier for all rows. Maps and counts
are kept in --work: a run that was stopped goes on where it was.

Source: arXiv 2308.11052 asks for superpixels on saliency and leaves CAM without them; the table is ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _experiment import Values, command, drawn, figures_of, interval, machine, say, times_of, write
from _postprocessing import (
    AROUND,
    KINDS,
    LEVELS,
    MIXES,
    POSTS,
    REFERENCE,
    Cell,
    makes_sense,
    measure,
    recipe_of,
)
from _postprocessing_page import figure, page
from _voc_maps import matrices

import pseudolabel
from pseudolabel.metrics.confusion import Counts
from pseudolabel.recipes.loading import load_recipe, plain_data
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.yaml import read_plain
from pseudolabel.records import ImageRecord
from pseudolabel.runs import disk
from pseudolabel.runs.run import Run
from pseudolabel.scoring.truth import Truth, of_reader

NAME = "postprocessing"
AVERAGED = "background cat cow dog horse person sheep sofa"  # at least 10 images each on the small `val`
SHOWN = ("miou", "ndr_recall", "dr_recall", "fg_precision")
DIFFERENCES = (
    *(((kind, post), (kind, "none")) for kind in KINDS for post in POSTS if post != "none"),
    *(((kind, f"{one} + superpixel resolve"), (kind, one)) for kind in KINDS for one in ("box", "Gaussian")),
    (("crops", "superpixel resolve"), ("cam", "superpixel resolve")),
    (("crops", "box + superpixel resolve"), ("cam", "superpixel resolve")),
    (("crops", "box + superpixel resolve"), ("cam", "box + superpixel resolve")),
    (("crops", "CRF"), ("cam", "CRF")),
    (("crops", "box + CRF"), ("cam", "CRF")),
    (("crops", "superpixel resolve + CRF"), ("cam", "superpixel resolve + CRF")),
    (("crops", "box + superpixel resolve + CRF"), ("cam", "superpixel resolve + CRF")),
    (("crops", "none"), ("cam", "none")),
    (("crops", "none"), ("crops-cam", "none")),
    (("crops", "box"), ("cam", "none")),
    *(((kind, "longer walk"), (kind, "CRF")) for kind in (*KINDS, "cam+saliency .3")),
    (("cam+saliency .3", "longer walk + CRF"), ("cam+saliency .3", "longer walk")),
    (("cam+saliency .3", "longer walk"), ("saliency-multiscale", "longer walk")),
    (("cam+saliency", "longer walk"), ("saliency-multiscale", "longer walk")),
    (("cam+saliency .3", "longer walk"), ("cam+saliency", "longer walk")),
    (("cam+saliency .3", "longer walk"), ("cam", "none")),
)


@dataclass(frozen=True)
class Place:
    """A split and its images.

    Attributes:
        split: name.
        truth: images in list order, classes.
    """

    split: str
    truth: Truth

    @property
    def records(self) -> tuple[ImageRecord, ...]:
        """Its images."""
        return self.truth.records


class Table:
    """Cells measured on demand; kept in memory and on disk."""

    def __init__(self, given: argparse.Namespace, picking: Place, judging: Place) -> None:
        self.given, self.picking, self.judging = given, picking, judging
        self.names = len(judging.truth.space.names)
        self.classes = [judging.truth.space.id_of(name) for name in given.average_over.split()]
        self.times = times_of(len(judging.records))
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.drawn: dict[tuple[str, str], dict[str, Values]] = {}

    def row(self, name: str, post: str) -> dict[str, Any]:
        """Threshold picked on train, figures on val; the first call measures."""
        key = (name, post)
        if key not in self.rows:
            self.rows[key] = self._row(name, post)
            picked = self.rows[key]
            say(
                f"{name}, {post}: mIoU {100 * picked['miou']:.1f}, NDR-recall "
                f"{100 * picked['ndr_recall']:.1f}, FG-precision {100 * picked['fg_precision']:.1f} "
                f"at {picked['threshold']}"
            )
        return self.rows[key]

    def _row(self, name: str, post: str) -> dict[str, Any]:
        chosen = POSTS[post]
        levels, few = LEVELS, self.picking.records
        if chosen.crf:
            (before,) = (other for other, one in POSTS.items() if one == chosen.before)
            middle = self.row(name, before)["threshold"]
            levels = tuple(sorted({round(middle * factor, 3) for factor in AROUND}))
            few = few[: self.given.crf_images]
        seen = self.figures(self.counts(name, post, self.picking.split, few, levels).sum(axis=1))
        best = int(np.nanargmax(seen["miou"]))
        tried = (levels[best],) if chosen.crf else levels
        counts = self.counts(name, post, self.judging.split, self.judging.records, tried)
        curve = self.figures(counts.sum(axis=1))
        at = tried.index(levels[best])
        self.drawn[name, post] = drawn(counts[at], self.times, self.classes)
        return {
            "maps": name,
            "post": post,
            "threshold": levels[best],
            "images_picked": len(few),
            "miou_picked": float(seen["miou"][best]),
            **{key: float(curve[key][at]) for key in SHOWN},
            "intervals": {key: interval(self.drawn[name, post][key]) for key in SHOWN},
            "oracle": float(np.nanmax(curve["miou"])) if not chosen.crf else None,
            "curve": {
                "split": self.picking.split if chosen.crf else self.judging.split,
                "thresholds": list(levels),
                **{key: [round(float(one), 5) for one in (seen if chosen.crf else curve)[key]]
                   for key in SHOWN},
            },
        }  # fmt: skip

    def figures(self, sums: Counts) -> dict[str, Values]:
        """Figures of summed matrices, over the averaged classes."""
        return figures_of(sums, self.classes)

    def counts(
        self, name: str, post: str, split: str, records: Sequence[ImageRecord], levels: tuple[float, ...]
    ) -> Counts:
        """(thresholds, images, 3, C+1, C+2)."""
        given = self.given
        sources = MIXES[name].parts if name in MIXES else (name,)
        recipe = recipe_of(name, POSTS[post], given.root, given.classifier)
        cell = Cell(
            recipe,
            tuple(given.work / "maps" / source / split / "maps" for source in sources),
            given.work / "maps" / REFERENCE / split / "maps",
            levels,
            given.work / "superpixels",
        )
        found = measure(cell, records, self.file(name, post, split), given.workers)
        whole = [
            matrices(found[f"counts_{index}"], found[f"ids_{index}"].tolist(), self.names)
            for index in range(len(records))
        ]
        return np.stack(whole, axis=1)

    def file(self, name: str, post: str, split: str) -> Path:
        """Where the counts of a cell are kept."""
        label = post.replace(" ", "_").replace(",", "")
        work: Path = self.given.work
        return work / "counts" / f"{name}-{label}-{split}.npz"

    def kept(self, name: str, post: str) -> bool:
        """Its counts of both splits are there."""
        return all(self.file(name, post, place.split).is_file() for place in (self.picking, self.judging))

    def difference(self, one: tuple[str, str], other: tuple[str, str]) -> dict[str, Any]:
        """What `one` gains over `other`, paired over images."""
        rows, draws = (self.rows[one], self.rows[other]), (self.drawn[one], self.drawn[other])
        return {
            "of": list(one),
            "over": list(other),
            **{
                key: {
                    "gain": rows[0][key] - rows[1][key],
                    "interval": interval(draws[0][key] - draws[1][key]),
                }
                for key in SHOWN
            },
        }


def main() -> None:
    """Generate, measure every cell, write."""
    given = _options()
    recipe = recipe_of(REFERENCE, POSTS["none"], given.root, given.classifier)
    judging = Place("val", of_reader(recipe.data))
    there = recipe.data.model_copy(update={"split": "train"})
    picking = Place("train", of_reader(there, given.train))
    for name in given.maps:
        for place in (picking, judging):
            _generate(name, place, given)
    ready = list(given.maps)
    mixes = [name for name, mix in MIXES.items() if set(mix.parts) <= set(ready)]
    table = Table(given, picking, judging)
    for post in given.post:
        for name in (*ready, *mixes):
            wanted = makes_sense(name, POSTS[post]) and name in (given.rows or (name,))
            if wanted and (not given.kept or table.kept(name, post)):
                table.row(name, post)
    result = {
        "experiment": "post-processing on VOC",
        "command": command(),
        **machine(),
        "images": len(judging.records),
        "images_picked": len(picking.records),
        "averaged_over": given.average_over.split(),
        "reference": "single-scale CAM of the original classifier, own class, above 0.25 of its maximum",
        "reading_of_255": "truth 255 is not counted; nothing is predicted 255",
        "kinds": {name: KINDS[name].title for name in ready} | {name: MIXES[name].title for name in mixes},
        "rows": list(table.rows.values()),
        "differences": [
            table.difference(one, other)
            for one, other in DIFFERENCES
            if one in table.rows and other in table.rows
        ],
        "networks": [_network(text) for text in given.networks],
    }
    write(given.out, NAME, result, page(result), figure(result))


def _network(text: str) -> dict[str, Any]:
    """mIoU of a run of `seg train` after its last epoch, `maps:post=RUN`."""
    key, _, folder = text.partition("=")
    name, _, post = key.partition(":")
    last = disk.read_json_lines(Path(folder) / "metrics.jsonl")[-1]
    recipe = read_plain(Path(folder) / "recipe.yaml", "recipe")[0]
    listed = of_reader(Run.open(recipe["masks"]).recipe.data).records
    return {
        "maps": name,
        "post": post,
        **{key: last[key] for key in ("epoch", "miou", "iou")},
        "images": len(listed),
        "seed": recipe["seed"],
    }


def _generate(name: str, place: Place, given: argparse.Namespace) -> None:
    """Store the maps that are not there; `pl generate` refuses a folder of another recipe."""
    folder = given.work / "maps" / name / place.split
    recipe = load_recipe(KINDS[name].recipe(given.root, place.split, given.classifier), GenerateRecipe)
    there = all((folder / "maps" / f"{record.id}.safetensors").is_file() for record in place.records)
    if there and _decides(Run.open(folder).recipe) == _decides(recipe):
        return
    say(f"maps of {name}, {place.split}")
    limit = len(place.records) if place.split == "train" else None
    pseudolabel.generate(recipe, folder, limit=limit, workers=given.workers)


def _decides(recipe: GenerateRecipe) -> Any:
    """What a recipe says about raw maps."""
    plain = plain_data(recipe)
    lines = [{key: one[key] for key in ("method", "aggregate")} for one in plain["maps"]]
    return [lines, *(plain[key] for key in ("seed", "precision", "labels"))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--classifier", type=Path, required=True, help="a run of `pl train`")
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--maps", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--post", nargs="+", choices=POSTS, default=list(POSTS))
    parser.add_argument("--rows", nargs="+", choices=(*KINDS, *MIXES), help="of these; all without it")
    parser.add_argument("--networks", nargs="+", default=[], metavar="MAPS:POST=RUN", help="of `seg train`")
    parser.add_argument("--train", type=int, default=120, help="first images of train, for thresholds")
    parser.add_argument("--crf-images", type=int, default=60, help="of these, for thresholds before a CRF")
    parser.add_argument("--average-over", default=AVERAGED, help="names of the classes of the means")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kept", action="store_true", help="write what --work has; measure no other cell")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--work", type=Path, default=Path("runs/postprocessing"))
    given = parser.parse_args()
    if REFERENCE not in given.maps:
        parser.error(f"--maps: {REFERENCE} is missing, whose maps tell DR from NDR")
    return given


if __name__ == "__main__":
    main()
