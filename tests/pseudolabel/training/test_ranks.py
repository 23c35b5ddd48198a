"""`pl train` on two ranks (gloo, torchrun): the figures of one rank, one result, one list of problems."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pseudolabel
from pseudolabel.runs import disk
from pseudolabel.training.state import load_state
from tests.pseudolabel.training.small_data import classifier_recipe, write_squares

ROOT = Path(__file__).parents[3]


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """Batch norm is held: statistics of a share are not those of a batch."""
    plain = classifier_recipe(write_squares(tmp_path / "data"))
    plain["optimizer"]["frozen_norm"] = True
    plain["objective"] = [{"name": "soft_margin"}, {"name": "focal", "weight": 0.5}]
    return {**plain, "noise": {"kind": "gaussian"}, "schedule": {"epochs": 2, "batch": 3}}


def on_two_ranks(recipe: dict[str, Any], out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    file = out.with_suffix(".yaml")
    file.write_text(json.dumps(recipe))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = ["pseudolabel.cli", "train", str(file), "-o", str(out), "--device", "cpu", "--json", *options]
    return subprocess.run(
        [*launcher, *command], capture_output=True, text=True, check=False, cwd=ROOT, timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_two_ranks_equal_one(recipe: dict[str, Any], tmp_path: Path) -> None:
    done = on_two_ranks(recipe, tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout)  # one document: the second rank prints nothing
    summary = pseudolabel.train(recipe, tmp_path / "one", device="cpu", quiet=True, workers=0)
    assert printed["ap"] == pytest.approx(summary.ap)
    assert printed["map"] == pytest.approx(summary.map)
    assert summary.map < 1, "a perfect score would show little"
    lines = [disk.read_json_lines(tmp_path / name / "metrics.jsonl") for name in ("one", "two")]
    assert len(lines[0]) == 2
    for first, second in zip(*lines, strict=True):
        assert first == pytest.approx(second, rel=1e-5)  # float32 sums in another order
        assert first["soft_margin.loss"] > 0.1
    files = [load_state(tmp_path / name / "checkpoints" / "last.safetensors")[0] for name in ("one", "two")]
    for name, value in files[0].items():
        torch.testing.assert_close(files[1][name], value, rtol=1e-4, atol=1e-5, msg=name)
    again = on_two_ranks(recipe, tmp_path / "two")
    assert again.returncode == 0
    assert {**json.loads(again.stdout), "seconds": 0} == {**printed, "seconds": 0}
    assert "nothing to do" in again.stderr


@pytest.mark.slow
def test_an_image_that_one_rank_cannot_read_is_left_out_on_both(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("train3", "train4", "train6"):
        broken = tmp_path / "data" / "JPEGImages" / f"{name}.jpg"
        broken.write_bytes(broken.read_bytes()[:-200])
    done = on_two_ranks(recipe, tmp_path / "two", "--on-bad", "skip", "--quiet")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == 3
    pseudolabel.train(recipe, tmp_path / "one", device="cpu", quiet=True, workers=0, on_bad="skip")
    lines = [disk.read_json_lines(tmp_path / name / "metrics.jsonl") for name in ("one", "two")]
    for first, second in zip(*lines, strict=True):
        assert first["images"] == 7
        assert first == pytest.approx(second, rel=1e-5)
    problems = [(tmp_path / name / "problems.jsonl").read_text() for name in ("one", "two")]
    assert problems[0] == problems[1]
    shutil.rmtree(tmp_path / "two")
    done = on_two_ranks(recipe, tmp_path / "two", "--quiet")
    assert done.returncode == 1
    assert "train" in done.stderr
