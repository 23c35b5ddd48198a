"""Maps x post-processing on VOC: what smoothing, superpixels and a CRF add to CAM, to saliency and to crops.

    python -m scripts.experiments.postprocessing.measure --root VOC2012 --classifier runs/voc/classifier

Every cell is a recipe on stored maps. Its threshold is the one of the largest mIoU on the first images of
`train`; figures are of all images of `val` at that threshold, with bootstrap intervals over images. Before a
CRF the threshold is tried at some multiples of the best one without it, on fewer images, since a CRF costs
the most. DR and NDR come from the single-scale CAM of the classifier for all rows. Maps and counts are kept
in --work: after a stop the same command continues.

Source: arXiv 2308.11052 asks for superpixels on saliency and leaves CAM without them; the table is ours.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pseudolabel
from pseudolabel.metrics.bootstrap import multiplicities, resampled
from pseudolabel.metrics.confusion import Counts, Values
from pseudolabel.recipes.loading import load_recipe, plain_data
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.yaml import read_plain
from pseudolabel.records import ImageRecord
from pseudolabel.runs import disk
from pseudolabel.runs.run import Run
from pseudolabel.scoring.truth import Truth, of_reader
from scripts.experiments.intervals import FIGURES, best_index, difference, figures_of, interval
from scripts.experiments.postprocessing.kinds import KINDS, MIXES, REFERENCE, makes_sense, parts_of, recipe_of
from scripts.experiments.results import Experiment, say
from scripts.experiments.stored_maps import LEVELS, POSTS, Cell, cell_counts, is_stored
from scripts.experiments.voc_maps import READING, matrices
from scripts.experiments.voc_maps import REFERENCE as REFERENCE_IN_WORDS

NAME = "postprocessing"
AROUND = (0.8, 1.0, 1.25)  # times the threshold that was best before the CRF
AVERAGED = "background cat cow dog horse person sheep sofa"  # at least 10 images each on the small `val`
DIFFERENCES = (
    *(((kind, post), (kind, "none")) for kind in KINDS for post in POSTS if post != "none"),
    *(
        ((kind, f"{filtered} + superpixel background"), (kind, filtered))
        for kind in KINDS
        for filtered in ("box", "Gaussian")
    ),
    (("crops", "superpixel background"), ("cam", "superpixel background")),
    (("crops", "box + superpixel background"), ("cam", "superpixel background")),
    (("crops", "box + superpixel background"), ("cam", "box + superpixel background")),
    (("crops", "CRF"), ("cam", "CRF")),
    (("crops", "box + CRF"), ("cam", "CRF")),
    (("crops", "superpixel background + CRF"), ("cam", "superpixel background + CRF")),
    (("crops", "box + superpixel background + CRF"), ("cam", "superpixel background + CRF")),
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
class Split:
    """A split and its images.

    Attributes:
        name: `train` or `val`.
        truth: images in list order, classes.
    """

    name: str
    truth: Truth

    @property
    def records(self) -> tuple[ImageRecord, ...]:
        """Its images."""
        return self.truth.records


class Table:
    """Cells that are measured on demand and kept in memory and on disk."""

    def __init__(self, options: argparse.Namespace, picking: Split, scoring: Split) -> None:
        self.options, self.picking, self.scoring = options, picking, scoring
        self.names = len(scoring.truth.space.names)
        self.classes = [scoring.truth.space.id_of(name) for name in options.average_over.split()]
        self.times = multiplicities(len(scoring.records))
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.samples: dict[tuple[str, str], dict[str, Values]] = {}

    def row(self, name: str, post: str) -> dict[str, Any]:
        """Threshold picked on train, figures on val; the first call measures."""
        key = (name, post)
        if key not in self.rows:
            row = self.rows[key] = self._row(name, post)
            figures = ", ".join(f"{figure} {100 * row[figure]:.1f}" for figure in FIGURES)
            say(f"{name}, {post}: {figures} at {row['threshold']}")
        return self.rows[key]

    def _row(self, name: str, post: str) -> dict[str, Any]:
        way = POSTS[post]
        levels, few = LEVELS, self.picking.records
        if way.crf:
            (before,) = (title for title, candidate in POSTS.items() if candidate == way.before)
            middle = self.row(name, before)["threshold"]
            levels = tuple(sorted({round(middle * factor, 3) for factor in AROUND}))
            few = few[: self.options.crf_images]
        picked = self.figures(self.counts(name, post, self.picking, few, levels).sum(axis=1))
        best = best_index(picked["miou"])
        scored_levels = (levels[best],) if way.crf else levels
        counts = self.counts(name, post, self.scoring, self.scoring.records, scored_levels)
        scored = self.figures(counts.sum(axis=1))
        at = scored_levels.index(levels[best])
        samples = self.samples[name, post] = resampled(counts[at], self.times, self.figures)
        curve = picked if way.crf else scored
        return {
            "maps": name,
            "post": post,
            "threshold": levels[best],
            "images_picked": len(few),
            "miou_picked": float(picked["miou"][best]),
            **{figure: float(scored[figure][at]) for figure in FIGURES},
            "intervals": {figure: interval(samples[figure]) for figure in FIGURES},
            "oracle": float(np.nanmax(scored["miou"])) if not way.crf else None,
            "curve": {
                "split": self.picking.name if way.crf else self.scoring.name,
                "thresholds": list(levels),
                **{figure: [round(float(value), 5) for value in curve[figure]] for figure in FIGURES},
            },
        }

    def figures(self, sums: Counts) -> dict[str, Values]:
        """Figures of summed matrices, over the averaged classes."""
        return figures_of(sums, self.classes)

    def counts(
        self, name: str, post: str, split: Split, records: Sequence[ImageRecord], levels: tuple[float, ...]
    ) -> Counts:
        """(thresholds, images, 3, C+1, C+2)."""
        options = self.options
        cell = Cell(
            recipe_of(name, POSTS[post], options.root, options.classifier),
            tuple(run_folder(options, kind, split.name) for kind in parts_of(name)),
            run_folder(options, REFERENCE, split.name),
            levels,
            options.work / "superpixels",
        )
        arrays = cell_counts(cell, records, self.file(name, post, split), options.workers)
        each = [
            matrices(arrays[f"counts_{index}"], arrays[f"ids_{index}"].tolist(), self.names)
            for index in range(len(records))
        ]
        return np.stack(each, axis=1)

    def file(self, name: str, post: str, split: Split) -> Path:
        """Where the counts of a cell are kept."""
        label = post.replace(" ", "_").replace(",", "")
        work: Path = self.options.work
        return work / "counts" / f"{name}-{label}-{split.name}.npz"

    def is_kept(self, name: str, post: str) -> bool:
        """Whether the counts of both splits are on disk."""
        return all(self.file(name, post, split).is_file() for split in (self.picking, self.scoring))

    def differences(self) -> list[dict[str, Any]]:
        """The pairs of DIFFERENCES that were measured, `of` minus `over`, paired over images."""
        return [
            {
                "of": list(of),
                "over": list(over),
                **difference(
                    (self.rows[of], self.rows[over]), (self.samples[of], self.samples[over]), FIGURES
                ),
            }
            for of, over in DIFFERENCES
            if of in self.rows and over in self.rows
        ]


def main(words: Sequence[str] | None = None) -> None:
    """Generate maps, measure every cell, write the result."""
    experiment = Experiment(NAME, words)
    options = _options(experiment)
    recipe = recipe_of(REFERENCE, POSTS["none"], options.root, options.classifier)
    scoring = Split("val", of_reader(recipe.data))
    train = recipe.data.model_copy(update={"split": "train"})
    picking = Split("train", of_reader(train, options.train))
    for name in options.maps:
        for split in (picking, scoring):
            generate(name, split, options)
    mixes = [name for name, mix in MIXES.items() if set(mix.parts) <= set(options.maps)]
    table = Table(options, picking, scoring)
    for post in options.post:
        for name in (*options.maps, *mixes):
            wanted = makes_sense(name, POSTS[post]) and name in (options.rows or (name,))
            if wanted and (not options.kept or table.is_kept(name, post)):
                table.row(name, post)
    result = {
        "experiment": "post-processing on VOC",
        **experiment.about(),
        "images": len(scoring.records),
        "images_picked": len(picking.records),
        "averaged_over": options.average_over.split(),
        "reference": REFERENCE_IN_WORDS,
        "reading_of_255": READING,
        "kinds": [
            *({"name": name, "title": KINDS[name].title} for name in options.maps),
            *({"name": name, "title": MIXES[name].title} for name in mixes),
        ],
        "rows": list(table.rows.values()),
        "differences": table.differences(),
        "networks": [network_of(text) for text in options.networks],
    }
    experiment.write(options.out, result)


def network_of(text: str) -> dict[str, Any]:
    """mIoU of a run of `seg train` after its last epoch; the text is `MAPS:POST=RUN`."""
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


def run_folder(options: argparse.Namespace, name: str, split: str) -> Path:
    """The run of `pl generate` that stores the maps of a kind."""
    work: Path = options.work
    return work / "maps" / name / split


def generate(name: str, split: Split, options: argparse.Namespace) -> None:
    """Store the maps that are missing; `pl generate` refuses a folder of another recipe."""
    folder = run_folder(options, name, split.name)
    recipe = load_recipe(KINDS[name].recipe(options.root, split.name, options.classifier), GenerateRecipe)
    complete = all(is_stored(folder, record) for record in split.records)
    if complete and _raw_maps(Run.open(folder).recipe) == _raw_maps(recipe):
        return
    say(f"maps of {name}, {split.name}")
    limit = len(split.records) if split.name == "train" else None
    pseudolabel.generate(recipe, folder, limit=limit, workers=options.workers)


def _raw_maps(recipe: GenerateRecipe) -> Any:
    """The part of a recipe that decides raw maps."""
    plain = plain_data(recipe)
    branches = [{key: branch[key] for key in ("method", "aggregate")} for branch in plain["maps"]]
    return [branches, *(plain[key] for key in ("seed", "precision", "labels"))]


def _options(experiment: Experiment) -> argparse.Namespace:
    parser = experiment.parser(__doc__)
    parser.add_argument("--classifier", type=Path, required=True, help="a run of `pl train`")
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--maps", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--post", nargs="+", choices=POSTS, default=list(POSTS))
    parser.add_argument("--rows", nargs="+", choices=(*KINDS, *MIXES), help="only these; default: all")
    parser.add_argument("--networks", nargs="+", default=[], metavar="MAPS:POST=RUN", help="of `seg train`")
    parser.add_argument("--train", type=int, default=120, help="first images of train, for thresholds")
    parser.add_argument("--crf-images", type=int, default=60, help="of these, for thresholds before a CRF")
    parser.add_argument("--average-over", default=AVERAGED, help="names of the classes of the means")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kept", action="store_true", help="measure no cell that --work does not have")
    options = experiment.options(parser, work="runs/postprocessing")
    if REFERENCE not in options.maps:
        parser.error(f"--maps: {REFERENCE} is missing, whose maps tell DR from NDR")
    return options


if __name__ == "__main__":
    main()
