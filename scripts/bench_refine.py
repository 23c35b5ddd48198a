"""Milliseconds of each refiner, background and postprocessor; speed and quality of superpixels; CRF runs.

    python -m scripts.bench_refine [--root VOC2012 --split val] [--images 20] [--rounds 5]
        [--crf [--classifier RUN]] [-o docs/results/refine_speed.json]

Without --root it draws scenes. Components come from the registry, each with its defaults and with every other
named option; they run interleaved on one image with three classes, in as many threads as torch takes. A
ratio is the median over rounds (over images for superpixels) of the ratio within a round. A postprocessor
that refuses an image of this size gets one of a quarter of the side.

--crf asks what the CRF costs a run of `pl generate` with CAM: two worker processes against one in `pl refine`
(twice as many images take so much longer: starting does not count), and the whole run against
(network + CRF) / cores, where network + CRF is the same run in one thread. Seconds are those of the summary:
from the first image to the last, after the classifier was loaded.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from pseudolabel import images, masks, registry
from pseudolabel.classifier.checkpoint import save_classifier
from pseudolabel.classifier.network import Classifier
from pseudolabel.contracts.inputs import scene
from pseudolabel.errors import MachineError
from pseudolabel.records import Dataset, LabelScores, Scores
from pseudolabel.registry import Component
from pseudolabel.runs import disk
from pseudolabel.superpixels import quality
from pseudolabel.superpixels.engine import Superpixels, segments
from pseudolabel.superpixels.labels import grid
from scripts.experiments.results import command, machine, say

CLASSES = 3
UNIT = "smooth"  # the row that others are told as multiples of
SLIC = "slic"  # scikit-image's, which other engines are told as multiples of
GOALS = {"smooth kernel=gaussian": ("cv2.GaussianBlur", 1.1)}  # row -> (its limit, goal)


@dataclass
class Row:
    """One thing that is timed."""

    name: str
    run: Callable[[], Any]
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Time, score and write."""
    first, *_ = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=first)
    parser.add_argument("--root", help="a data set in VOC's layout; scenes where it is left out")
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=20, help="images for the superpixels")
    parser.add_argument("--segments", type=int, default=200, help="superpixels an image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crf", action="store_true", help="time whole runs with the CRF as well")
    parser.add_argument("--crf-images", type=int, default=128, help="of those runs; 100 at least")
    parser.add_argument("--crf-rounds", type=int, default=3, help="of those runs; the median is told")
    parser.add_argument("--classifier", help="for those runs; an untrained one where it is left out")
    parser.add_argument("-o", "--out", type=Path, help="a .json; a table of the same name goes beside it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        reader = {"reader": "scenes", "root": f"{temporary}/scenes", "split": "train", "size": 384}
        if given.root:
            reader = {"reader": "voc", "root": given.root, "split": given.split}
        component = registry.get("readers", str(reader["reader"]))
        data: Dataset = component.run(component.params(**{k: v for k, v in reader.items() if k != "reader"}))
        result: dict[str, Any] = {
            "command": command("bench_refine", sys.argv[1:]),
            **machine(),
            "rounds": given.rounds,
        }
        result["data"] = {"name": Path(given.root).name if given.root else "scenes", "split": reader["split"]}
        result["components"] = components(images.read_image(data.records[0].image), given.rounds)
        result["superpixels"] = superpixels(data, given.images, given.segments)
        if given.crf:
            result["crf"] = crf(
                reader, data, given.crf_images, given.crf_rounds, given.classifier, Path(temporary)
            )
    print(markdown(result))
    if given.out:
        disk.write_json(given.out, result)
        disk.write_text(given.out.with_suffix(".md"), markdown(result))


def components(input_image: Any, rounds: int) -> dict[str, Any]:
    """Every component of the three kinds on one image."""
    image = torch.from_numpy(input_image.copy())
    rows, left_out, sizes = [], {}, {}
    for kind in ("refiners", "backgrounds", "postprocessors"):
        for name in registry.names(kind):
            component = registry.get(kind, name)
            for title, options in settings(component):
                try:
                    row, shape = row_of(component, title, options, image)
                except MachineError as fault:
                    left_out[title] = str(fault)
                    continue
                rows.append(row)
                sizes[title] = list(shape)
    rows += limits(image)
    say(f"{len(rows)} settings of components, {rounds} rounds")
    interleave(rows, rounds)
    by_name = {row.name: row for row in rows}
    shown = {}
    for row in rows:
        entry: dict[str, Any] = {"ms": ms(row.seconds), f"of {UNIT}": over(row, by_name[UNIT])}
        entry["size"] = sizes.get(row.name, list(image.shape[:2]))
        limit, goal = GOALS.get(row.name, (None, None))
        if limit in by_name and goal is not None:
            ratio = over(row, by_name[limit])
            entry |= {"limit": limit, "ratio": ratio, "goal": goal, "reached": ratio <= goal}
        shown[row.name] = entry
    return {"size": list(image.shape[:2]), "classes": CLASSES, "rows": shown, "left_out": left_out}


def settings(component: Component) -> Iterator[tuple[str, dict[str, Any]]]:
    """The defaults of a component, then each other named option in turn."""
    usual = component.params().as_dict()
    yield component.name, {}
    for key, field_info in component.params.model_fields.items():
        if get_origin(field_info.annotation) is Literal:
            for option in get_args(field_info.annotation):
                if option != usual[key]:
                    yield f"{component.name} {key}={option}", {key: option}


def row_of(
    component: Component, title: str, options: dict[str, Any], image: Tensor
) -> tuple[Row, tuple[int, ...]]:
    """A row that has run once, on a quarter of the side where the whole image is refused."""
    params = component.params.model_validate(options)
    for part in (1, 4):
        shown = image[::part, ::part].contiguous()
        scores: Scores | LabelScores = scene(CLASSES, *shown.shape[:2])[0]
        if component.kind == "postprocessors":
            assert isinstance(scores, Scores)
            scores = LabelScores.join(torch.full(shown.shape[:2], 0.3), scores)
        row = Row(title, partial(component.run, scores, shown, params))
        try:
            row.run()
        except MachineError:
            if part == 4:
                raise
            continue
        return row, tuple(shown.shape[:2])
    raise AssertionError


def limits(image: Tensor) -> list[Row]:
    """What others take for the same."""
    try:
        import cv2
    except ImportError:
        return []
    cv2.setNumThreads(torch.get_num_threads())
    maps = [row.numpy() for row in scene(CLASSES, *image.shape[:2])[0].values]
    params = registry.get("refiners", "smooth").params.model_validate({"kernel": "gaussian"}).as_dict()
    size, sigma = (params["size"],) * 2, params["sigma"]
    zero = cv2.BORDER_CONSTANT
    return [
        Row("cv2.GaussianBlur", lambda: [cv2.GaussianBlur(m, size, sigma, borderType=zero) for m in maps])
    ]


def interleave(rows: list[Row], rounds: int) -> None:
    """Time all rows, round by round."""
    for _ in range(rounds):
        for row in rows:
            begun = time.perf_counter()
            row.run()
            row.seconds.append(time.perf_counter() - begun)


def ms(seconds: list[float]) -> float:
    """Median in milliseconds."""
    return round(1e3 * statistics.median(seconds), 2)


def over(row: Row, other: Row) -> float:
    """Median of the ratios within a round."""
    return round(statistics.median(a / b for a, b in zip(row.seconds, other.seconds, strict=True)), 3)


def superpixels(data: Dataset, count: int, wanted: int) -> dict[str, Any]:
    """Every engine and a plain grid on real images: time, number, leaks and what they can reach."""
    rows: dict[str, Row] = {}
    sums: dict[str, list[Any]] = {}
    records = [record for record in data.records if record.mask is not None][:count]
    say(f"superpixels of {len(records)} images")
    left_out: dict[str, str] = {}
    for number, record in enumerate(records):
        assert record.mask is not None
        image, truth = images.read_image(record.image), masks.read_mask(record.mask)
        for name, make in engines(wanted).items():
            if name in left_out:
                continue
            try:
                if not number:
                    make(image)  # loads the library
                begun = time.perf_counter()
                labels = make(image)
            except MachineError as fault:
                left_out[name] = str(fault)
                continue
            row = rows.setdefault(name, Row(name, lambda: None))
            row.seconds.append(time.perf_counter() - begun)
            leaks, known = quality.under_segmentation_error(labels, truth)
            right, _ = quality.achievable_accuracy(labels, truth)
            sums.setdefault(name, []).append((labels.max() + 1, leaks, right, known))
    shown = {}
    for name, row in rows.items():
        number, leaks, right, known = np.sum(sums[name], axis=0).tolist()
        shown[name] = {
            "ms": ms(row.seconds),
            f"of {SLIC}": over(row, rows[SLIC]),
            "superpixels": round(number / len(records), 1),
            "under_segmentation_error": round(leaks / known, 5),
            "achievable_accuracy": round(right / known, 5),
        }
    best = min((name for name in shown if name != "grid"), key=lambda name: shown[name][f"of {SLIC}"])
    speed = round(1 / shown[best][f"of {SLIC}"], 2)
    goal = {"engine": best, "times as fast": speed, "goal": 3, "reached": speed >= 3}
    return {"images": len(records), "wanted": wanted, "rows": shown, "fastest": goal, "left_out": left_out}


def engines(wanted: int) -> dict[str, Callable[[Any], Any]]:
    """Each engine, and for scale a grid that looks at nothing."""
    names = get_args(Superpixels.model_fields["engine"].annotation)
    makers: dict[str, Callable[[Any], Any]] = {
        name: partial(segments, params=Superpixels(engine=name, segments=wanted)) for name in names
    }
    makers["grid"] = lambda image: grid(image.shape[0], image.shape[1], wanted)
    return makers


def crf(
    reader: dict[str, Any], data: Dataset, count: int, rounds: int, classifier: str | None, folder: Path
) -> dict[str, Any]:
    """Runs of the command with the CRF: in one thread, and in worker processes."""
    cores = os.cpu_count() or 1
    count = min(count, len(data.records))
    if classifier is None:
        classifier = str(folder / "classifier.safetensors")
        torch.manual_seed(0)
        network = Classifier("tf_efficientnet_lite0", data.space.foreground, output_stride=16)
        save_classifier(Path(classifier), network, data.space, (0.5,) * 3, (0.5,) * 3, {}, "none")
    recipe = {
        "data": reader,
        "classifier": {"checkpoint": classifier},
        "maps": [{"method": {"name": "cam"}, "refine": [{"name": "normalise", "method": "max"}]}],
        "background": {"name": "constant", "threshold": 0.2},
        "postprocess": [{"name": "crf"}],
    }
    disk.write_text(folder / "crf.json", json.dumps(recipe))  # YAML as well
    plain = ("--set", "postprocess=[]", "--set", "output.maps=true")

    def masks(name: str, workers: int, *options: str) -> float:
        options = (*options, "--limit", str(count))
        return command_seconds("generate", folder / "crf.json", folder / name, workers, *options)

    def refined(name: str, workers: int, part: int) -> float:
        options = ("--limit", str(part), "--set", "postprocess=[{name: crf}]")
        return command_seconds("refine", folder / "plain", folder / f"{name}-{part}", workers, *options)

    network_alone = masks("plain", 0, *plain)
    seconds: dict[str, list[float]] = {
        name: [] for name in ("serial", "whole", "share", "one", "two", "times")
    }
    for number in range(rounds):
        say(f"CRF: round {number + 1} of {rounds}, {count} images")
        for name, workers in (("serial", 0), ("whole", cores)):
            seconds[name].append(masks(f"{name}-{number}", workers))
        seconds["share"].append(seconds["whole"][-1] / (seconds["serial"][-1] / cores))
        for name, workers in (("one", 1), ("two", 2)):
            half, full = (refined(f"{name}-{number}", workers, part) for part in (count // 2, count))
            seconds[name].append((full - half) / (count - count // 2))
        seconds["times"].append(seconds["one"][-1] / seconds["two"][-1])
    middle = {name: statistics.median(several) for name, several in seconds.items()}
    rounded = {name: [round(value, 3) for value in several] for name, several in seconds.items()}
    return {
        "images": count,
        "cores": cores,
        "rounds": rounds,
        "network_ms": round(1e3 * network_alone / count, 1),
        "network_and_crf_ms": round(1e3 * middle["serial"] / count, 1),
        "whole_run_ms": round(1e3 * middle["whole"] / count, 1),
        "crf_ms": {"1": round(1e3 * middle["one"], 1), "2": round(1e3 * middle["two"], 1)},
        "two_processes": _judged("times", middle["times"], rounded["times"], middle["times"] >= 1.8, 1.8),
        "whole_run": _judged("ratio", middle["share"], rounded["share"], middle["share"] <= 1.1, 1.1),
    }


def command_seconds(command: str, source: Path, out: Path, workers: int, *options: str) -> float:
    """Seconds by the summary of a run of `pl`; without workers in one thread."""
    words = (sys.executable, "-m", "pseudolabel.cli", command, str(source), "-o", str(out), "-q")
    alone = {} if workers else {"OMP_NUM_THREADS": "1"}
    subprocess.run((*words, "--workers", str(workers), *options), env=os.environ | alone, check=True)
    return float(json.loads((out / "summary.json").read_text(encoding="utf-8"))["seconds"])


def _judged(what: str, middle: float, several: list[float], reached: bool, goal: float) -> dict[str, Any]:
    return {what: round(middle, 3), "rounds": several, "goal": goal, "reached": reached}


def markdown(result: dict[str, Any]) -> str:
    """All of it as tables."""
    lines = ["# Speed after the maps\n", f"`{result['command']}`", ""]
    lines.append(f"{result['machine']}, {result['threads']} threads, torch {result['torch']}.")
    part = result["components"]
    height, width = part["size"]
    lines += ["", f"## Components: {height} x {width}, {part['classes']} classes", ""]
    lines += [f"| component | ms | of `{UNIT}` | |", "| --- | --- | --- | --- |"]
    for name, row in part["rows"].items():
        notes = [f"at {row['size'][0]} x {row['size'][1]}"] if row["size"] != part["size"] else []
        if "limit" in row:
            notes.append(f"{row['ratio']} of {row['limit']}, goal {row['goal']}")
        lines.append(f"| {name} | {row['ms']} | {row[f'of {UNIT}']} | {'; '.join(notes)} |")
    lines += [f"\n{name}: {why}" for name, why in part["left_out"].items()]
    part = result["superpixels"]
    about = result["data"]
    lines += ["", f"## Superpixels: {part['images']} images of {about['name']} `{about['split']}`", ""]
    lines.append(f"{part['wanted']} wanted; UE: under-segmentation error, ASA: achievable accuracy.\n")
    lines += [f"| engine | ms | of `{SLIC}` | made | UE | ASA |", "| --- | --- | --- | --- | --- | --- |"]
    for name, row in part["rows"].items():
        cells = (name, *row.values())
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    best = part["fastest"]
    lines.append(
        f"\n`{best['engine']}` is {best['times as fast']} times as fast as `{SLIC}`, goal {best['goal']}."
    )
    lines += [f"\n{name}: {why}" for name, why in part["left_out"].items()]
    if "crf" in result:
        part = result["crf"]
        two, total = part["two_processes"], part["whole_run"]
        rounds = f"median of {part['rounds']} rounds"
        lines += ["", f"## CRF: {part['images']} images, {part['cores']} cores, {rounds}", ""]
        lines.append(
            f"CAM alone takes {part['network_ms']} ms of one core an image, with the CRF "
            f"{part['network_and_crf_ms']}. Two worker processes do {two['times']} times what one does (goal "
            f"{two['goal']}). The whole run takes {part['whole_run_ms']} ms an image, {total['ratio']} of "
            f"(network + CRF) / cores (goal {total['goal']})."
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
