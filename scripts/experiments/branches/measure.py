"""What `pl generate` costs beside the forwards and backwards that its recipe needs, and its peak of memory.

    python -m scripts.experiments.branches.measure configs/voc/best.yaml --before OTHER_CHECKOUT
        --set data.root=VOC2012 --set classifier.checkpoint=runs/voc/classifier
        --also configs/voc/cam.yaml --also configs/voc/crops.yaml

Rounds of the same images, one after the other: the recipe as it stands, in bf16 where the processor has
it, each of its branches alone, the needed passes alone, and (with --before) the same recipe by another
checkout of the project. Figures are medians over rounds; a ratio is the median of the ratios within a round.
Recipes given with --also run in rounds of their own, here and by the other checkout.

The needed passes: for each scale and flip that any branch sees one forward, and for each label one backward
to the image where a branch takes gradients, of the folded network in channels_last, one view at a time, in as
many lanes as torch has threads, in one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from pseudolabel import images
from pseudolabel.explain.model import Explained
from pseudolabel.explain.resize import Resize
from pseudolabel.pipeline.explaining import Prepared, prepare, read_recipe
from pseudolabel.recipes.schema import GenerateRecipe
from scripts.experiments.results import Experiment, say

NAME = "branches"
ROOT = Path(__file__).parents[3]


def main(words: Sequence[str] | None = None) -> None:
    """Time every row, write the result."""
    experiment = Experiment(NAME, words)
    parser = experiment.parser(__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--before",
        type=lambda text: Path(text).resolve(),
        help="another checkout: `pl` of it runs the same recipe of its own",
    )
    parser.add_argument(
        "--also", action="append", default=[], type=Path, help="a recipe beside it, with --before"
    )
    parser.add_argument("--also-limit", type=int, default=8)
    parser.add_argument("--also-rounds", type=int, default=7)
    options = experiment.options(parser)
    recipe, data = read_recipe(options.recipe, options.overrides)
    prepared = prepare(recipe, data, say)
    rows: dict[str, list[dict[str, float]]] = {}
    for number in range(options.rounds):
        for name, checkout, extra in variants(recipe, options):
            figures = command_figures(checkout, options.recipe, options.limit, options.overrides, extra)
            rows.setdefault(name, []).append(figures)
            say(f"round {number + 1} of {options.rounds}, {name}: {rows[name][-1]}")
        seconds = needed_seconds(prepared, options.limit)
        rows.setdefault("needed passes", []).append({"seconds": seconds})
        say(f"round {number + 1} of {options.rounds}, needed passes: {seconds:.1f} s")
    about = {**experiment.about(), "recipe": options.recipe.name, "images": options.limit}
    beside = {recipe.name: beside_before(recipe, options) for recipe in options.also}
    more = {"rows": summary(rows), "beside": beside, "bf16_over_float32": bf16_over_float32()}
    experiment.write(options.out, {**about, "rounds": options.rounds, **more})


def beside_before(recipe: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of another recipe here and before, medians over rounds, and the median of their ratios."""
    rounds = [
        [
            command_figures(checkout, recipe, options.also_limit, options.overrides)["seconds"]
            for checkout in (ROOT, options.before)
        ]
        for _ in range(options.also_rounds)
    ]
    say(f"{recipe.name}: seconds here and before {rounds}")
    here, before = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    ratio = statistics.median(mine / others for mine, others in rounds)
    figures = {"seconds": here, "seconds_before": before, "ratio": ratio}
    return {**figures, "images": options.also_limit, "rounds": options.also_rounds}


def bf16_over_float32(size: int = 2048) -> float:
    """How many times as fast one thread multiplies bf16 matrices as float32 ones: what bf16 can bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = {}
    for kind in (torch.float32, torch.bfloat16):
        matrix = torch.ones(size, size, dtype=kind)
        torch.mm(matrix, matrix)
        start = time.monotonic()
        for _ in range(3):
            torch.mm(matrix, matrix)
        seconds[kind] = time.monotonic() - start
    torch.set_num_threads(threads)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def variants(recipe: GenerateRecipe, options: argparse.Namespace) -> list[tuple[str, Path, tuple[str, ...]]]:
    """Name, checkout and overrides of each row that runs `pl generate`."""
    rows: list[tuple[str, Path, tuple[str, ...]]] = [("recipe", ROOT, ())]
    if options.before is not None:
        rows.append(("before", options.before, ()))
    if bf16_in_hardware():
        rows.append(("bf16", ROOT, ("precision=bf16",)))
    plain = recipe.model_dump(mode="json")["maps"]
    for branch, data in zip(recipe.maps, plain, strict=True):
        alone = ("fuse=null", f"maps={json.dumps([data])}")
        rows.append((f"{branch.method.component_name} alone", ROOT, alone))
    return rows


def bf16_in_hardware() -> bool:
    """Whether the processor multiplies bf16 matrices (AMX or AVX512-BF16), or there is a GPU that does."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return "amx_bf16" in flags or "avx512_bf16" in flags


def command_figures(
    checkout: Path, recipe: Path, limit: int, overrides: Sequence[str], extra: Sequence[str] = ()
) -> dict[str, float]:
    """Seconds of the run's summary and the largest resident set of its process."""
    if checkout != ROOT:
        recipe = checkout / recipe
    with tempfile.TemporaryDirectory() as temporary:
        words = [sys.executable, "-c", RUN, "generate", str(recipe), "-o", f"{temporary}/run", "-q"]
        words += ["--limit", str(limit)]
        for text in (*overrides, *extra):
            words += ["--set", text]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        done = subprocess.run(
            words, cwd=checkout, env=environment, check=True, capture_output=True, text=True
        )
        summary = json.loads((Path(temporary) / "run" / "summary.json").read_text())
        peak = int(done.stderr.rsplit("peak ", 1)[1].split()[0])
    return {"seconds": summary["seconds"], "peak_bytes": 1024.0 * peak}


RUN = """
import sys
from pseudolabel.cli import main
sys.argv = ["pl", *sys.argv[1:]]
try:
    main()
finally:
    # not of getrusage: that keeps the peak of the process that started this one
    lines = open("/proc/self/status").read().splitlines()
    print("peak", *(line.split()[1] for line in lines if line.startswith("VmHWM")), file=sys.stderr)
"""


def needed_seconds(prepared: Prepared, limit: int) -> float:
    """Seconds of the passes alone, in as many lanes as torch has threads."""
    jobs = [job for record in prepared.data.records[:limit] for job in _jobs(prepared, record)]
    lanes = torch.get_num_threads()
    models = [Explained(prepared.loaded.network, batch=1) for _ in range(lanes)]
    for model in models:
        model.probe()

    def lane(index: int) -> None:
        torch.set_num_threads(1)
        for view, labels, gradient in jobs[index::lanes]:
            _passes(models[index], view, labels, gradient)

    start = time.monotonic()
    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(lane, range(lanes)))
    seconds = time.monotonic() - start
    torch.set_num_threads(lanes)
    return seconds


def _jobs(prepared: Prepared, record: Any) -> list[tuple[torch.Tensor, tuple[int, ...], bool]]:
    """Views of one image, its labels, and whether a branch takes gradients of that view."""
    wanted: dict[tuple[float, bool], bool] = {}
    for branch in prepared.recipe.maps:
        gradient = branch.method.component.traits["project"] == "adjoint"
        for step in branch.aggregate:
            params = step.params.as_dict()
            for scale in params["scales"]:
                for flip in (False, True)[: 1 + params["flip"]]:
                    wanted[scale, flip] = wanted.get((scale, flip), False) or gradient
    values = torch.from_numpy(images.read_image(record.image)).permute(2, 0, 1).float() / 255
    size = int(values.shape[1]), int(values.shape[2])
    views = []
    for (scale, flip), gradient in wanted.items():
        target = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        view = Resize(size, target, antialias=True)(values)[None]
        view = view.flip(-1) if flip else view
        views.append((view.contiguous(memory_format=torch.channels_last), record.labels, gradient))
    return views


def _passes(model: Explained, view: torch.Tensor, labels: Sequence[int], gradient: bool) -> None:
    if not gradient:
        with torch.no_grad():
            model.logits(view)
        return
    inputs = view.detach().requires_grad_()
    logits = model.logits(inputs)
    for number, label in enumerate(labels):
        torch.autograd.grad(logits[0, label - 1], inputs, retain_graph=number + 1 < len(labels))


def summary(rows: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians over rounds, and medians of the ratios to the recipe within a round."""
    table: dict[str, dict[str, float]] = {}
    for name, rounds in rows.items():
        ratios = [
            own["seconds"] / recipe["seconds"] for own, recipe in zip(rounds, rows["recipe"], strict=True)
        ]
        table[name] = {
            "seconds": statistics.median(figures["seconds"] for figures in rounds),
            "ratio_to_recipe": statistics.median(ratios),
        }
        peaks = [figures["peak_bytes"] for figures in rounds if "peak_bytes" in figures]
        if peaks:
            table[name]["peak_bytes"] = max(peaks)
    return table


if __name__ == "__main__":
    main()
