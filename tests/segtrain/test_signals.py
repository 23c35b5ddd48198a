"""Killed, interrupted and terminated, then continued: the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pseudolabel.runs import disk
from pseudolabel.training.state import load_state
from segtrain.checkpoint import locate

EPOCHS = 40


@pytest.mark.slow
def test_signals_at_any_moment_lose_nothing(
    make_voc: Callable[..., Path], recipe_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(recipe_of(make_voc(count=4), schedule={"epochs": EPOCHS, "batch": 2})))

    def start(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "segtrain.cli", "train", str(recipe), "-o", str(out), "-q"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        options = ["--device", "cpu", "--workers", "1"]
        return subprocess.Popen([*command, *options], env=environment, stderr=subprocess.PIPE, text=True)

    def epochs() -> int:
        file = tmp_path / "run" / "metrics.jsonl"
        return len(file.read_text().splitlines()) if file.exists() else 0

    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before, process = epochs(), start(tmp_path / "run")
        deadline = time.monotonic() + 600
        while epochs() < before + 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        _, output = process.communicate(timeout=600)
        assert process.returncode == code, output
        assert before < epochs() < EPOCHS
        assert "Traceback" not in output
        if number != signal.SIGKILL:
            assert "the same command continues" in output
        load_state(locate(tmp_path / "run"))
    for name in ("run", "whole"):
        process = start(tmp_path / name)
        _, output = process.communicate(timeout=600)
        assert process.returncode == 0, output
    for name in ("checkpoints/last.safetensors", "metrics.jsonl", "MODEL_CARD.md"):
        assert disk.sha256_file(tmp_path / "run" / name) == disk.sha256_file(tmp_path / "whole" / name)
