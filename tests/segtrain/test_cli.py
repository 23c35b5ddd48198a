"""`seg`: quick help, results on standard output, the right exit code, errors in one line."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segtrain import cli

Make = Callable[..., Path]
Recipe = Callable[..., dict[str, Any]]


def seg(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        cli.app([str(argument) for argument in arguments], standalone_mode=False)
    code = left.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture
def recipe(make_voc: Make, recipe_of: Recipe, tmp_path: Path) -> Path:
    root = make_voc(count=2, val=2)
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe_of(root, schedule={"epochs": 1}, validation={"split": "val"})))
    return path


def test_help_imports_no_torch_and_is_quick() -> None:
    code = (
        "import sys; sys.argv = ['seg', '--help']\n"
        "from segtrain import cli\n"
        "try:\n    cli.main()\nexcept SystemExit as left:\n"
        "    assert not left.code\n    heavy = {'torch', 'numpy', 'PIL'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    times = []
    for _ in range(3):
        start = time.perf_counter()
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - start)
        assert process.returncode == 0, process.stderr
        assert "predict" in process.stdout
    assert statistics.median(times) < 2  # 0.2 s on a quiet machine; the promise is half a second


def test_the_line_by_commands(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert seg("check", recipe, "--quiet") == 0
    assert "4 of 4 masks are good" in capsys.readouterr().out
    assert seg("train", recipe, "-o", run, "--device", "cpu", "--workers", "0", "--json") == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["epochs"] == 1
    assert "weights: none taken" in output.err
    assert seg("evaluate", run, "--device", "cpu", "--quiet") == 0
    assert "mean over" in capsys.readouterr().out
    assert seg("evaluate", run, "--device", "cpu", "--quiet", "--checkpoint", "best", "--json") == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"]["name"] == "best"
    images = tmp_path / "voc" / "JPEGImages"
    assert seg("predict", run, images, "-o", tmp_path / "out", "--device", "cpu", "--quiet") == 0
    (images / "bad.png").write_bytes(b"no image")
    assert seg("predict", run, images, "-o", tmp_path / "out", "--device", "cpu", "--quiet") == 1
    assert "bad.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "message"),
    [
        (["--set", "schedule.epochs=none"], 2, "usage", "schedule.epochs"),
        (["--set", "optimizer.momentun=0.5"], 2, "usage", "momentum"),
        (["--set", "data.split=nowhere"], 1, "data", "nowhere"),
        (["--set", "masks=nowhere"], 1, "data", "masks: nowhere is no folder"),
        (["--device", "cuda:77"], 1, "environment", "cuda:77"),
        (["--on-bad", "maybe"], 2, "usage", "choose stop or skip"),
        (["--set", "precision=float16", "--device", "cpu"], 1, "environment", "float16"),
    ],
)
def test_faults_end_with_their_code_and_one_line(
    arguments: list[str], code: int, kind: str, message: str,
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert seg("train", recipe, "-o", tmp_path / "run", "--quiet", "--json", *arguments) == code
    output = capsys.readouterr()
    error = json.loads(output.out)["error"]
    assert error["kind"] == kind
    assert message in error["message"]
    assert "Traceback" not in output.err
    assert not (tmp_path / "run").exists()


def test_rgb_masks_are_refused_by_the_command(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pseudolabel import images, masks

    root = tmp_path / "voc"
    folder = tmp_path / "coloured"
    for index in range(2):
        mask = masks.read_mask(root / "SegmentationClass" / f"train_{index}.png")
        images.write_image(folder / f"train_{index}.png", masks.colour(mask))
    assert seg("train", recipe, "-o", tmp_path / "run", "--quiet", "--set", f"masks={folder}") == 1
    assert (
        "looks like RGB colours of the VOC palette: `seg check --fix-from-palette`" in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()
    fixed = tmp_path / "fixed"
    assert seg("check", recipe, "--quiet", "--set", f"masks={folder}", "--fix-from-palette", fixed) == 0
    assert (
        seg("train", recipe, "-o", tmp_path / "run", "--quiet", "--device", "cpu", "--set", f"masks={fixed}")
        == 0
    )
