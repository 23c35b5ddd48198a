"""What the lattice of a dense CRF costs: `crf` against `crf_exact` on images, in labels and in mIoU.

    python -m scripts.experiments.crf_exact.measure runs/cam --set background.threshold=0.17

Both run on the same small image and label scores (--side pixels at the longer side, reaches shrunk along), so
that only the kernels differ; labels are compared there, mIoU after going back to full size bilinearly, beside
no CRF and the lattice at full size. Every preset starts from labels (scores beside a constant background are
no probabilities). The run must hold stored maps and its data ground truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pseudolabel import images, registry
from pseudolabel.metrics.bootstrap import multiplicities, resampled
from pseudolabel.metrics.confusion import Counts, confusion
from pseudolabel.metrics.figure_arrays import figure_arrays
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.records import ImageRecord, LabelScores
from pseudolabel.runs.run import Run
from pseudolabel.scoring.truth import Truth, of_reader
from scripts.experiments.intervals import interval
from scripts.experiments.results import Experiment, say
from scripts.experiments.stored_maps import is_stored, label_scores_of, maps_of

NAME = "crf_exact"
PRESETS = ("irn", "psa", "deeplab")
ROWS = ("no CRF", "lattice, full size", "lattice", "exact")


@dataclass
class Comparison:
    """Images of one preset, compared.

    Attributes:
        matrices: of each row of ROWS, a confusion matrix an image.
        differ: share of the pixels whose label differs between lattice and exact, an image.
        shift: mean absolute change of the label scores, an image.
    """

    matrices: dict[str, list[Counts]] = field(default_factory=lambda: {name: [] for name in ROWS})
    differ: list[float] = field(default_factory=list)
    shift: list[float] = field(default_factory=list)

    def add(self, scores: Mapping[str, LabelScores], truth: NDArray[np.uint8], names: int) -> None:
        """Count one image by every row."""
        lattice, exact = scores["lattice"], scores["exact"]
        self.differ.append((lattice.rows() != exact.rows()).float().mean().item())
        self.shift.append((lattice.values - exact.values).abs().mean().item())
        for name, each in scores.items():
            mask = _resized(each, truth.shape).mask().numpy()
            self.matrices[name].append(confusion(truth, mask, names))

    def figures(self) -> dict[str, Any]:
        """Figures with intervals over images; the difference is paired."""
        times = multiplicities(len(self.differ))
        stacks = {name: np.stack(matrices) for name, matrices in self.matrices.items()}
        sums = {name: float(figure_arrays(stack.sum(axis=0))["miou"]) for name, stack in stacks.items()}
        samples = {
            name: resampled(stacks[name], times, figure_arrays)["miou"] for name in ("exact", "lattice")
        }
        return {
            "labels_that_differ": {
                "mean": float(np.mean(self.differ)),
                "median": float(np.median(self.differ)),
                "range": [min(self.differ), max(self.differ)],
            },
            "mean_change_of_q": float(np.mean(self.shift)),
            "miou": sums,
            "exact_minus_lattice": {
                "value": sums["exact"] - sums["lattice"],
                "interval": interval(samples["exact"] - samples["lattice"]),
            },
        }


def main(words: Sequence[str] | None = None) -> None:
    """Compare on some images of a run, write the result."""
    experiment = Experiment(NAME, words)
    parser = experiment.parser(__doc__)
    parser.add_argument("run", type=Path, help="a run of `pl generate` with stored maps")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--side", type=int, default=96, help="pixels at the longer side")
    options = experiment.options(parser)
    recipe = Run.open(options.run).recipe_with(options.overrides)
    truth = of_reader(recipe.data)
    able = [record for record in truth.records if record.labels and is_stored(options.run, record)]
    records = able[:: max(1, len(able) // options.images)][: options.images]
    presets = []
    for preset in PRESETS:
        figures = compared(options.run, records, recipe, truth, preset, options.side)
        presets.append({"preset": preset, **figures})
        say(f"{preset}: {figures}")
    result = {**experiment.about(), "images": len(records), "side": options.side, "presets": presets}
    experiment.write(options.out, result)


def compared(
    run: Path,
    records: Sequence[ImageRecord],
    recipe: GenerateRecipe,
    truth: Truth,
    preset: str,
    side: int,
) -> dict[str, Any]:
    """Figures of one preset over some images."""
    comparison = Comparison()
    for record in records:
        pixels = images.read_image(record.image)
        image = torch.from_numpy(pixels.copy())
        plain = label_scores_of(maps_of(run, record), pixels, recipe)
        small, little, share = _shrunk(plain, image, side)
        rows = {
            "no CRF": plain,
            "lattice, full size": _smoothed("crf", plain, image, preset),
            "lattice": _smoothed("crf", small, little, preset, share),
            "exact": _smoothed("crf_exact", small, little, preset, share),
        }
        comparison.add(rows, truth.mask(record), len(truth.space.names))
    return comparison.figures()


def _shrunk(scores: LabelScores, image: Tensor, side: int) -> tuple[LabelScores, Tensor, float]:
    """Label scores and image with `side` pixels at the longer side, and the share of the size."""
    height, width = image.shape[:2]
    share = min(1.0, side / max(height, width))
    size = (max(1, round(height * share)), max(1, round(width * share)))
    values = functional.interpolate(scores.values[None], size=size, mode="bilinear", antialias=True)[0]
    channels = image.permute(2, 0, 1)[None].float()
    little = functional.interpolate(channels, size=size, mode="bilinear", antialias=True)[0]
    keep = torch.ones(size, dtype=torch.bool)
    return LabelScores(scores.ids, values, keep), little.permute(1, 2, 0).round().to(torch.uint8), share


def _smoothed(name: str, scores: LabelScores, image: Tensor, preset: str, share: float = 1.0) -> LabelScores:
    """Label scores after a CRF whose reaches are shrunk to a share."""
    component = registry.get("postprocessors", name)
    settings = component.params.model_validate({"preset": preset}).settings()  # type: ignore[attr-defined]
    reaches = {key: getattr(settings, key) * share for key in ("position_xy", "colour_xy")}
    params = component.params.model_validate({"preset": preset, "unary": "labels", **reaches})
    with torch.no_grad():
        smoothed: LabelScores = component.run(scores, image, params)
    return smoothed


def _resized(scores: LabelScores, size: tuple[int, ...]) -> LabelScores:
    if scores.values.shape[1:] == size:
        return scores
    values = functional.interpolate(scores.values[None], size=size, mode="bilinear")[0]
    return LabelScores(scores.ids, values, torch.ones(size, dtype=torch.bool))


if __name__ == "__main__":
    main()
