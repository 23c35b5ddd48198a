"""`pl generate`: the bytes depend neither on how the work is shared out nor on how often it is begun."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pseudolabel import masks
from pseudolabel.commands.generate import generate
from pseudolabel.errors import Interrupted, UsageError
from pseudolabel.pipeline import driver
from tests.pseudolabel.commands.untrained import (
    CROPS,
    digests,
    lines,
    place_fixture,  # noqa: F401
    recipe,
)


@pytest.mark.parametrize("changed", [{}, CROPS], ids=["cam", "crops"])
def test_workers_give_the_same_bytes(place: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    chosen = recipe(place, **changed)
    for workers in (0, 1, 3):
        generate(chosen, tmp_path / str(workers), workers=workers, quiet=True)
    wanted = digests(tmp_path / "0")
    assert len(wanted) == 8 * 2 + 4
    assert digests(tmp_path / "1") == digests(tmp_path / "3") == wanted


@pytest.mark.slow
def test_processes_give_the_same_bytes(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = recipe(place, **CROPS)  # has a component of the CPU
    generate(chosen, tmp_path / "0", workers=0, quiet=True)
    monkeypatch.setattr(driver, "WORTH_PROCESSES", 1)
    generate(chosen, tmp_path / "processes", workers=1, quiet=True)
    assert digests(tmp_path / "processes") == digests(tmp_path / "0")


@pytest.mark.parametrize("changed", [{}, CROPS], ids=["cam", "crops"])
def test_batch_size_and_list_order_change_only_rounding(
    place: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    generate(recipe(place, **changed, batch=64), tmp_path / "wanted", workers=0, quiet=True)
    other = tmp_path / "other"
    shutil.copytree(place, other)
    head, *rows = (other / "tags.csv").read_text().splitlines()
    (other / "tags.csv").write_text("\n".join([head, *rows[::-1], ""]))
    runs = {f"batch {batch}": recipe(place, **changed, batch=batch) for batch in (1, 2, 7)}
    runs["reversed"] = recipe(other, **changed, batch=64)
    for name, chosen in runs.items():
        generate(chosen, tmp_path / name, workers=0, quiet=True)
        differing = pixels = 0
        for index in range(8):
            maps = [load_file(tmp_path / run / "maps" / f"p{index}.safetensors") for run in ("wanted", name)]
            wanted, actual = (each["scores"] for each in maps)
            torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
            first, two = (
                masks.read_mask(tmp_path / run / "masks" / f"p{index}.png") for run in ("wanted", name)
            )
            differing, pixels = differing + int((first != two).sum()), pixels + first.size
        assert differing <= max(1, pixels / 10_000), name


def test_finished_images_are_not_done_again(place: Path, tmp_path: Path) -> None:
    chosen = recipe(place)
    generate(chosen, tmp_path / "run", workers=0, quiet=True)
    before = digests(tmp_path / "run")
    written = (tmp_path / "run" / "masks" / "p3.png").stat().st_mtime_ns
    again = generate(chosen, tmp_path / "run", workers=2, quiet=True)
    assert (again.done, again.skipped, again.images) == (0, 8, 8)
    assert digests(tmp_path / "run") == before
    assert (tmp_path / "run" / "masks" / "p3.png").stat().st_mtime_ns == written


def test_a_damaged_or_missing_file_is_done_again(place: Path, tmp_path: Path) -> None:
    chosen = recipe(place)
    generate(chosen, tmp_path / "run", workers=0, quiet=True)
    before = digests(tmp_path / "run")
    (tmp_path / "run" / "masks" / "p1.png").unlink()
    (tmp_path / "run" / "masks" / "p4.png").write_bytes(b"\x89PNG")
    (tmp_path / "run" / "maps" / "p6.safetensors").write_bytes(b"")
    again = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    assert (again.done, again.skipped) == (3, 5)
    assert digests(tmp_path / "run") == before


def test_maps_asked_for_later_are_added(place: Path, tmp_path: Path) -> None:
    generate(recipe(place, output={}), tmp_path / "run", workers=0, quiet=True)
    assert not (tmp_path / "run" / "maps").exists()
    again = generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    assert again.done == 8
    generate(recipe(place), tmp_path / "whole", workers=0, quiet=True)
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")


def test_a_limit_then_the_whole_gives_the_same_bytes(place: Path, tmp_path: Path) -> None:
    generate(recipe(place), tmp_path / "whole", workers=0, quiet=True)
    first = generate(recipe(place), tmp_path / "run", workers=0, limit=3, quiet=True)
    assert first.images == 3
    assert list(lines(tmp_path / "run")) == ["p0", "p1", "p2"]
    rest = generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    assert (rest.done, rest.skipped) == (5, 3)
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")
    with pytest.raises(UsageError, match="--limit 0"):
        generate(recipe(place), tmp_path / "none", limit=0, quiet=True)


def test_a_signal_finishes_what_is_under_way(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    generate(recipe(place), tmp_path / "whole", workers=0, quiet=True)
    plain = driver.write_files

    def write_files(folder: Path, job: Any, result: Any) -> Any:
        if job.id == "p2":
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(folder, job, result)

    monkeypatch.setattr(driver, "write_files", write_files)
    with pytest.raises(Interrupted, match="3 of 8 masks are finished; the same command continues") as caught:
        generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    assert caught.value.exit_code == 143
    assert not (tmp_path / "run" / "manifest.jsonl").exists()
    monkeypatch.undo()
    rest = generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    assert (rest.done, rest.skipped) == (5, 3)
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")
