"""How close map methods run to what the hardware allows, and beside captum, torch-cam and pytorch-grad-cam.

    python -m scripts.bench_maps [--models resnet50 tf_efficientnet_lite0 vit_tiny_patch16_224]
        [--rounds 7] [--device auto] [--generate VOC2012/JPEGImages] [-o docs/results/map_speed.json]

A model that the file already has is replaced, the others stay.

All rows of a model run interleaved in one process; a ratio is the median over rounds of the ratio within a
round. The libraries are the extra `referee`, in an environment of their own; without them only our rows run.
The limits: a bare forward of the plain network in channels_last for CAM and Grad-CAM; for k classes of
saliency one forward and k backwards to the input of the folded network in channels_last; for SmoothGrad and
crops that many of these passes in batches of 16. A ratio below 1 is faster than the limit.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pseudolabel
from pseudolabel import images
from pseudolabel.classifier.checkpoint import save_classifier
from pseudolabel.classifier.network import Classifier
from pseudolabel.explain.model import Explained
from pseudolabel.records import LabelSpace, Targets
from pseudolabel.runs import disk
from pseudolabel.training.device import pick
from scripts.experiments.results import command
from scripts.experiments.voc_maps import bound

CLASSES = 20
ASKED = (1, 6, 10)  # classes that maps are asked of
BATCH = 16  # items of one forward, as recipes have it
LIBRARIES = ("captum.attr", "torchcam.methods", "pytorch_grad_cam", "pytorch_grad_cam.utils.model_targets")
Run = Callable[[], Any]


@dataclass
class Row:
    """One thing that is timed; `goal` bounds the ratio to the row `limit`."""

    name: str
    run: Run
    limit: str | None = None
    goal: float | None = None
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Time every model and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", default=["resnet50", "tf_efficientnet_lite0", "vit_tiny_patch16_224"]
    )
    parser.add_argument("--size", type=int, default=320, help="pixels a side")
    parser.add_argument("--crops", type=int, default=200, help="crops of the crop row")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--generate", type=Path, help="time pl generate with CAM on this folder's images")
    parser.add_argument("-o", "--out", type=Path, help="a .json; a table of the same name goes beside it")
    given = parser.parse_args()
    device = pick(given.device)
    before = disk.read_json(given.out)["models"] if given.out and given.out.is_file() else {}
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "models": before,
    }
    for name in given.models:
        torch.manual_seed(0)
        stride = 16 if name.startswith("vit") else 32
        network = Classifier(name, CLASSES, output_stride=stride).eval().requires_grad_(False)
        with ExitStack() as stack:
            rows = rows_of(network, given.size, given.crops, device, stack)
            interleave(rows, given.rounds, device)
        entry: dict[str, Any] = {
            "command": command("bench_maps", sys.argv[1:]),
            "rounds": given.rounds,
            "rows": table(rows),
        }
        show(name, entry["rows"])
        if given.generate:
            entry["pl generate, CAM"] = generate_share(network, given.generate, device)
            print(f"{name}: pl generate {entry['pl generate, CAM']}")
        result["models"][name] = entry
        if given.out:
            disk.write_json(given.out, result)
            disk.write_text(given.out.with_suffix(".md"), markdown(result))


def rows_of(network: Classifier, size: int, crops: int, device: torch.device, stack: ExitStack) -> list[Row]:
    """Limits, our methods and those of the libraries that are installed, for one network."""
    source = torch.Generator().manual_seed(1)
    images = torch.randn(4, 3, size, size, generator=source).to(device)
    few, single = Targets.of([(2, 7, 11)] * 4), Targets.of([(2, 7, 11)])
    many = torch.randn(BATCH, 3, 224, 224, generator=source).to(device)
    plain = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = Explained(network, device=device, batch=BATCH)
    folded = model.network
    last = {"memory_format": torch.channels_last}

    def forward() -> None:
        with torch.inference_mode():
            plain(images.contiguous(**last))

    def passes(inputs: Tensor, classes: Sequence[int]) -> None:
        with torch.enable_grad():
            leaf = inputs.contiguous(**last).detach().requires_grad_()
            logits = folded(leaf)
            for place, label in enumerate(classes):
                torch.autograd.grad(logits[:, label].sum(), leaf, retain_graph=place + 1 < len(classes))

    def samples() -> None:
        for start in range(0, 16, BATCH):
            passes(images[:1].expand(min(BATCH, 16 - start), -1, -1, -1), ASKED)

    def crop_passes() -> None:
        for start in range(0, crops, BATCH):
            passes(many[: min(BATCH, crops - start)], (1,))

    def ours(method: str, targets: Targets, *around: tuple[str, dict[str, Any]], count: int = 4) -> Run:
        line = bound(method, *around)
        keys = [(0, str(index)) for index in range(count)]
        return lambda: line.reduce(line.explain(model, images[:count], targets, keys).values)

    photo = torch.randn(1, 3, 375, 500, generator=source).to(device)
    cropped = bound("saliency", ("random_crop", {"count": crops}))
    rows = [
        Row("bare forward, channels_last", forward),
        Row("CAM, 3 classes", ours("cam", few), "bare forward, channels_last", 1.05),
        Row("Grad-CAM, 3 classes", ours("grad_cam", few), "bare forward, channels_last", 1.10),
        Row("1 forward + 3 backwards, folded", lambda: passes(images, ASKED)),
        Row("saliency, 3 classes", ours("saliency", few), "1 forward + 3 backwards, folded", 1.10),
        Row("16 x (1 forward + 3 backwards), folded", samples),
        Row(
            "SmoothGrad, 16 samples, 3 classes",
            ours("saliency", single, ("smoothgrad", {"count": 16}), count=1),
            "16 x (1 forward + 3 backwards), folded",
            1.10,
        ),
        Row(f"{crops} x (forward + backward) at 224, folded", crop_passes),
        Row(
            f"{crops} crops at 224 of a 375 x 500 image",
            lambda: cropped.explain(model, photo, Targets.of([(2,)]), [(0, "photo")]),
            f"{crops} x (forward + backward) at 224, folded",
            1.05,
        ),
    ]
    return rows + _libraries(network, images, stack)


def _libraries(network: Classifier, images: Tensor, stack: ExitStack) -> list[Row]:
    """The same questions asked of the libraries; none where they are not installed."""
    try:
        captum, *_ = (importlib.import_module(name) for name in LIBRARIES)
    except ImportError as error:
        print(f"without the libraries ({error}); install the extra `referee`", file=sys.stderr)
        return []
    own = copy.deepcopy(network).to(images.device)

    def saliency() -> None:
        explainer = captum.Saliency(own)
        for label in ASKED:
            explainer.attribute(images.clone().requires_grad_(), target=label, abs=True)

    def noise() -> None:
        explainer = captum.NoiseTunnel(captum.Saliency(own))
        for label in ASKED:
            explainer.attribute(images[:1].clone().requires_grad_(), nt_samples=16, target=label)

    noisy = "16 x (1 forward + 3 backwards), folded"
    rows = [
        Row("captum Saliency, 3 classes", saliency, "1 forward + 3 backwards, folded"),
        Row("captum NoiseTunnel, 16 samples, 3 classes", noise, noisy),
    ]
    return rows if network.name.startswith("vit") else rows + _layer_libraries(network, images, stack)


def _layer_libraries(network: Classifier, images: Tensor, stack: ExitStack) -> list[Row]:
    """The libraries' maps of a CNN's last layer."""
    captum, torchcam, gradcam, targets = (importlib.import_module(name) for name in LIBRARIES)
    device = images.device
    own = copy.deepcopy(network).to(device)
    layer = dict(own.named_modules())[last_module(own)]
    rows: list[Row] = []

    def layer_gradcam() -> None:
        explainer = captum.LayerGradCam(own, layer)
        for label in ASKED:
            explainer.attribute(images.clone().requires_grad_(), target=label)

    rows.append(Row("captum LayerGradCam, 3 classes", layer_gradcam, "bare forward, channels_last"))
    for name, method in (("CAM", torchcam.CAM), ("GradCAM", torchcam.GradCAM)):
        apart = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        apart.requires_grad_(name == "GradCAM")
        options = {"fc_layer": "head"} if name == "CAM" else {}
        extractor = stack.enter_context(method(apart, last_module(apart), **options))

        def ask(extractor: Any = extractor, apart: nn.Module = apart, grad: bool = name == "GradCAM") -> None:
            with torch.enable_grad() if grad else torch.no_grad():
                scores = apart(images.contiguous(memory_format=torch.channels_last))
                for place, label in enumerate(ASKED):
                    more = {"retain_graph": place + 1 < len(ASKED)} if grad else {}
                    extractor([label] * len(images), scores, **more)

        rows.append(Row(f"torch-cam {name}, 3 classes", ask, "bare forward, channels_last"))
    apart = copy.deepcopy(network).to(device).requires_grad_()
    explainer = gradcam.GradCAM(apart, [dict(apart.named_modules())[last_module(apart)]])
    stack.callback(explainer.activations_and_grads.release)

    def grad_cam() -> None:
        for label in ASKED:
            wanted = [targets.ClassifierOutputTarget(label) for _ in images]
            explainer(input_tensor=images, targets=wanted)

    rows.append(Row("pytorch-grad-cam GradCAM, 3 classes", grad_cam, "bare forward, channels_last"))
    return rows


def last_module(network: Classifier) -> str:
    """Name of the last module whose output is the feature grid."""
    shapes: list[tuple[str, tuple[int, ...]]] = []

    def record(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes.append((name, tuple(output.shape)))

    hooks = [
        module.register_forward_hook(partial(record, name))
        for name, module in network.named_modules()
        if name and not name.startswith("head")
    ]
    device = next(network.parameters()).device
    with torch.no_grad():
        grid = tuple(network.features(torch.zeros(1, 3, 64, 64, device=device)).shape)
    for hook in hooks:
        hook.remove()
    return [name for name, shape in shapes if shape == grid and not name.endswith("backbone")][-1]


def interleave(rows: list[Row], rounds: int, device: torch.device) -> None:
    """Time all rows, round by round; a first round warms up and does not count."""
    for number in range(rounds + 1):
        for row in rows:
            _settle(device)
            begun = time.perf_counter()
            row.run()
            _settle(device)
            if number:
                row.seconds.append(time.perf_counter() - begun)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(rows: list[Row]) -> dict[str, Any]:
    """Median seconds and median ratio to the limit of every row."""
    by_name = {row.name: row for row in rows}
    shown: dict[str, Any] = {}
    for row in rows:
        entry: dict[str, Any] = {"ms": round(1e3 * statistics.median(row.seconds), 2)}
        if row.limit:
            ratios = [a / b for a, b in zip(row.seconds, by_name[row.limit].seconds, strict=True)]
            entry |= {"limit": row.limit, "ratio": round(statistics.median(ratios), 3)}
            entry["ratios"] = [round(min(ratios), 3), round(max(ratios), 3)]
            if row.goal is not None:
                entry |= {"goal": row.goal, "reached": entry["ratio"] <= row.goal}
        shown[row.name] = entry
    for mine, theirs in (
        ("Grad-CAM, 3 classes", "pytorch-grad-cam GradCAM, 3 classes"),
        ("saliency, 3 classes", "captum Saliency, 3 classes"),
        ("SmoothGrad, 16 samples, 3 classes", "captum NoiseTunnel, 16 samples, 3 classes"),
        ("CAM, 3 classes", "torch-cam CAM, 3 classes"),
    ):
        if theirs in by_name:
            times = [b / a for a, b in zip(by_name[mine].seconds, by_name[theirs].seconds, strict=True)]
            shown[mine][f"faster than {theirs.split()[0]}"] = round(statistics.median(times), 2)
    return shown


def generate_share(network: Classifier, folder: Path, device: torch.device) -> dict[str, Any]:
    """Images a second of `pl generate` with CAM as a share of the bare network's on the same images."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))[:128]
    plain = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sizes: dict[tuple[int, int], list[Path]] = {}
    for file in files:
        sizes.setdefault(images.read_size(file), []).append(file)
    batches = [group[at : at + BATCH] for group in sizes.values() for at in range(0, len(group), BATCH)]
    ready = [
        torch.stack([torch.from_numpy(images.read_image(file)).permute(2, 0, 1) for file in batch]).float()
        / 255
        for batch in batches
    ]
    names = "".join(f"{name}\n" for name in ("background", *(f"class{c}" for c in range(1, CLASSES + 1))))
    bare, runs = [], []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "images").mkdir()
        rows = ["file,labels"]
        for number, file in enumerate(files):
            shutil.copy(file, root / "images" / file.name)
            rows.append(f"{file.name},class{1 + number % CLASSES};class{1 + (number + 7) % CLASSES}")
        disk.write_text(root / "images" / "tags.csv", "\n".join([*rows, ""]))
        disk.write_text(root / "images" / "classes.txt", names)
        space = LabelSpace(tuple(names.split()))
        save_classifier(root / "classifier.safetensors", network, space, (0.5,) * 3, (0.5,) * 3, {}, "none")
        recipe = {
            "data": {
                "reader": "table", "root": str(root / "images"), "labels": "tags.csv",
                "classes": "classes.txt",
            },
            "classifier": {"checkpoint": str(root / "classifier.safetensors")},
            "maps": [{"method": {"name": "cam"}, "refine": [{"name": "normalise", "method": "max"}]}],
            "background": {"name": "constant", "threshold": 0.2},
        }  # fmt: skip
        for number in range(4):
            begun = time.perf_counter()
            with torch.inference_mode():
                for batch in ready:
                    plain(batch.to(device).contiguous(memory_format=torch.channels_last))
            _settle(device)
            middle = time.perf_counter()
            summary = pseudolabel.generate(recipe, root / f"run{number}", device=str(device), quiet=True)
            if number:
                bare.append(middle - begun)
                runs.append(summary.seconds)
    ratios = [b / w for b, w in zip(bare, runs, strict=True)]
    return {
        "images": len(files),
        "bare images_per_second": round(len(files) / statistics.median(bare), 2),
        "images_per_second": round(len(files) / statistics.median(runs), 2),
        "share of the bare network": round(statistics.median(ratios), 3),
        "goal": 0.85,
    }


def show(name: str, entries: dict[str, Any]) -> None:
    """Print the rows of a model."""
    print(f"\n{name}")
    for row, entry in entries.items():
        goal = f"   goal {entry['goal']}: {'yes' if entry['reached'] else 'NO'}" if "goal" in entry else ""
        ratio = f"{entry['ratio']:8.3f}" if "ratio" in entry else "        "
        faster = "".join(f"   {key} {value}x" for key, value in entry.items() if key.startswith("faster"))
        print(f"  {row:48s} {entry['ms']:10.1f} ms {ratio}{goal}{faster}", flush=True)


def markdown(result: dict[str, Any]) -> str:
    """The figures as a page."""
    lines = [
        "# Speed of map methods",
        "",
        f"{result['device']}, {result['threads']} threads, torch {result['torch']}. Rows of a model ran "
        "interleaved in one process; ratio = time / limit, median of the rounds' ratios (least, greatest).",
        "",
    ]
    for model, entry in result["models"].items():
        lines += [f"## {model}", "", f"`{entry['command']}`", ""]
        lines += ["| | ms | ratio to the limit | goal | |", "| --- | --- | --- | --- | --- |"]
        for row, figures in entry["rows"].items():
            faster = "; ".join(f"{k} {v} times" for k, v in figures.items() if k.startswith("faster"))
            ratio = ""
            if "ratio" in figures:
                low, high = figures["ratios"]
                ratio = f"{figures['ratio']} ({low} to {high})"
            lines.append(f"| {row} | {figures['ms']} | {ratio} | {figures.get('goal', '')} | {faster} |")
        share = entry.get("pl generate, CAM")
        if share:
            part = 100 * share["share of the bare network"]
            lines += [
                "",
                f"`pl generate` with CAM on {share['images']} images: {share['images_per_second']}/s, "
                f"the bare network {share['bare images_per_second']}/s: {part:.0f} % (goal 85).",
            ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
