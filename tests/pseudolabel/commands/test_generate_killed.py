"""`pl generate` killed at random moments and started again gives the bytes of a run left alone."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.classifier.checkpoint import save_classifier
from pseudolabel.classifier.network import Classifier
from pseudolabel.commands.generate import generate
from pseudolabel.pipeline.driver import WORTH_PROCESSES
from pseudolabel.records import LabelSpace

KILLS = 20
NAMES = ("background", "cat", "dog")


def recipe_on(root: Path, count: int, size: int) -> dict[str, Any]:
    """Images of two shapes, a classifier of drawn weights; returns a recipe with every kind of file."""
    (root / "images").mkdir(parents=True)
    source = np.random.default_rng(3)
    rows = ["id,labels"]
    for index in range(count):
        shape = (size, size + 8, 3) if index % 3 else (size + 8, size, 3)
        coarse = Image.fromarray(source.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        image = coarse.resize(shape[1::-1], Image.Resampling.BICUBIC)
        image.save(root / "images" / f"p{index:03d}.png")
        rows.append(f"p{index:03d},{('cat', 'dog', 'cat;dog')[index % 3]}")
    (root / "tags.csv").write_text("\n".join([*rows, ""]))
    (root / "classes.txt").write_text("\n".join([*NAMES, ""]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = Classifier("test_resnet", 2, output_stride=8)
    space = LabelSpace(NAMES)
    save_classifier(root / "classifier.safetensors", network, space, (0.5,) * 3, (0.25,) * 3, {}, "none")
    data = {"reader": "table", "root": str(root), "images": "images", "labels": "tags.csv"}
    crops = {"name": "random_crop", "count": 4, "size": 24, "chunk": 2}
    method = {"method": {"name": "saliency"}, "aggregate": [crops], "refine": [{"name": "normalise"}]}
    return {
        "data": {**data, "classes": "classes.txt"},
        "classifier": {"checkpoint": str(root / "classifier.safetensors")},
        "maps": [method],
        "background": {"name": "superpixel", "segments": 12},
        "output": {"maps": True, "overlays": True},
        "batch": 8,
    }


def digests(run: Path) -> dict[str, str]:
    """sha256 of every file but the summary and the lock."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in ("summary.json", ".lock")
    }


def started(recipe: dict[str, Any], out: Path, workers: int) -> Any:
    """`generate` in a process of its own, forked from one that has everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.pseudolabel.commands.test_generate_killed", "skimage.segmentation"]
    )
    process = context.Process(
        target=generate, args=(recipe, out), kwargs={"workers": workers, "quiet": True, "device": "cpu"}
    )
    process.start()
    return process


def complete(recipe: dict[str, Any], out: Path, workers: int) -> float:
    """Run to the end; returns the seconds."""
    begun = time.monotonic()
    process = started(recipe, out, workers)
    process.join(120)
    assert process.exitcode == 0
    return time.monotonic() - begun


@pytest.mark.slow
def test_killed_at_random_moments_gives_the_same_bytes(tmp_path: Path) -> None:
    recipe = recipe_on(tmp_path / "data", count=24, size=32)
    complete(recipe, tmp_path / "warm", 2)
    usual = complete(recipe, tmp_path / "whole", 2)
    wanted = digests(tmp_path / "whole")
    assert len(wanted) == 24 * 3 + 5
    draw = random.Random(11)
    out, runs, landed, tries = tmp_path / "killed-0", 0, 0, 0
    # a machine that has got quicker since ends many runs before their kill: more are tried then
    while tries < KILLS or (landed < KILLS // 2 and tries < 5 * KILLS):
        tries += 1
        moment = draw.uniform(0.05, 1.0)
        process = started(recipe, out, workers=2)
        process.join(moment * usual)
        landed += process.is_alive()
        process.kill()
        process.join()
        if (out / "manifest.jsonl").exists():  # this one came to its end: begin another
            complete(recipe, out, 2)
            assert digests(out) == wanted
            runs += 1
            out = tmp_path / f"killed-{runs}"
    complete(recipe, out, 0)
    assert digests(out) == wanted
    assert landed >= KILLS // 2, f"only {landed} of {tries} kills hit a run under way"


def descendants(pid: int) -> set[int]:
    """Every process below one, by the kernel's own list."""
    children: set[int] = set()
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            children |= {child} | descendants(child)
    return children


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="lists children through /proc")
def test_a_kill_leaves_no_process_behind(tmp_path: Path) -> None:
    recipe = recipe_on(tmp_path / "data", count=2 * WORTH_PROCESSES, size=16)
    process = started(recipe, tmp_path / "run", workers=2)
    below: set[int] = set()
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not list((tmp_path / "run").glob("masks/*.png")):
        assert process.is_alive()
        below |= descendants(process.pid)
        time.sleep(0.05)
    below |= descendants(process.pid)
    assert len(below) >= 2, "no worker process was seen"
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    limit = time.monotonic() + 10
    while any(map(alive, below)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not [pid for pid in below if alive(pid)]
