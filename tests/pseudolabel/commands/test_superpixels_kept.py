"""`output.superpixels`: the folder is filled and read by generate, refine (in processes) and sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from pseudolabel.commands.generate import generate
from pseudolabel.commands.refine import refine
from pseudolabel.pipeline import driver
from pseudolabel.superpixels import slic
from tests.pseudolabel.commands.untrained import (
    CROPS,
    digests,
    place_fixture,  # noqa: F401
    recipe,
)


def kept(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.superpixels")}


def test_runs_share_what_is_kept_and_write_the_same(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kept"
    bare = {**CROPS, "output": {"maps": True}}
    with_folder = {**CROPS, "output": {"maps": True, "superpixels": str(folder)}}
    generate(recipe(place, **bare), tmp_path / "bare", device="cpu", quiet=True)
    generate(recipe(place, **with_folder), tmp_path / "one", device="cpu", workers=0, quiet=True)
    first = kept(folder)
    assert len(first) == 8
    assert digests(tmp_path / "one") == digests(tmp_path / "bare")

    monkeypatch.setattr(driver, "WORTH_PROCESSES", 1)  # so that worker processes do it
    refine(
        tmp_path / "bare", tmp_path / "new", overrides=["background.segments=10", *_at(folder)], quiet=True
    )
    second = kept(folder)
    assert len(second) == 16
    assert first.items() <= second.items()

    def never(*_: object) -> None:
        raise AssertionError("all of them are kept")

    monkeypatch.setattr(slic, "slic", never)
    generate(recipe(place, **with_folder), tmp_path / "two", device="cpu", workers=2, quiet=True)
    assert digests(tmp_path / "two") == digests(tmp_path / "bare")
    assert kept(folder) == second


def _at(folder: Path) -> list[str]:
    return [f"output.superpixels={folder}"]


def test_a_run_goes_on_with_or_without_the_folder(place: Path, tmp_path: Path) -> None:
    plain = recipe(place, **CROPS)
    generate(plain, tmp_path / "run", device="cpu", limit=3, quiet=True)
    summary = generate(
        plain, tmp_path / "run", device="cpu", overrides=_at(tmp_path / "kept"), limit=5, quiet=True
    )
    assert (summary.skipped, summary.done) == (3, 2)
    assert len(kept(tmp_path / "kept")) == 2
