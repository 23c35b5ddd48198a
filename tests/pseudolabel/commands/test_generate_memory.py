"""Memory stays flat over a long list."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pseudolabel
from pseudolabel.runs import disk
from pseudolabel.runs.writing import RunFolder
from tests.pseudolabel.commands.untrained import NAMES, TAGS, image, recipe, save_tiny

COUNT, SETTLED, MOST = 500, 50, 50 * 2**20  # images, images, bytes


def resident() -> int:
    """Bytes of this process in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads /proc/self/status")
def test_memory_is_flat_over_500_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    rows = ["id,labels"]
    random = np.random.default_rng(0)
    for index in range(COUNT):
        size = (int(random.integers(30, 80)), int(random.integers(30, 80)))
        image(index, size).save(root / "images" / f"p{index}.png")
        rows.append(f"p{index},{TAGS[index % len(TAGS)]}")
    disk.write_text(root / "tags.csv", "\n".join([*rows, ""]))
    disk.write_text(root / "classes.txt", "\n".join([*NAMES, ""]))
    save_tiny(root / "run")
    peaks: list[int] = []
    record = RunFolder.record

    def watch(folder: RunFolder, line: Mapping[str, Any]) -> None:
        record(folder, line)
        peaks.append(resident())

    monkeypatch.setattr(RunFolder, "record", watch)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # waiting for the disk is not what is tried
    summary = pseudolabel.generate(recipe(root), tmp_path / "run", device="cpu", quiet=True, workers=2)
    assert summary.done == len(peaks) == COUNT
    growth = max(peaks[SETTLED:]) - peaks[SETTLED]
    assert growth < MOST, f"{growth / 2**20:.0f} MiB more after image {SETTLED}"
