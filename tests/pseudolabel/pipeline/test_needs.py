"""Components that need a run's network or a file per image: loaded by the caller, part of the fingerprint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from pseudolabel import generate, masks, registry
from pseudolabel.errors import DataError, UsageError
from tests.pseudolabel.commands.untrained import TAGS, place_fixture, recipe  # noqa: F401

PLANTED = {"refiners.confidence": "confidence", "postprocessors.painted": "painted"}


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    entries = [
        EntryPoint(name, f"tests.third_party.needy_components.{module}", registry.ENTRY_POINTS)
        for name, module in PLANTED.items()
    ]
    monkeypatch.setattr(registry, "_entries", lambda: entries)
    registry._modules.cache_clear()
    yield
    registry._modules.cache_clear()


def paint(root: Path, out: Path, column: int) -> Path:
    """A file per image whose pixels left of a column are painted."""
    out.mkdir()
    for index in range(len(TAGS)):
        size = np.asarray(masks.read_mask(root / f"p{index}.png")).shape
        painted = np.zeros(size, np.uint8)
        painted[:, :column] = 1
        (out / f"p{index}.bin").write_bytes(painted.tobytes())
    return out


def test_a_postprocessor_reads_one_file_per_image(place: Path, tmp_path: Path) -> None:
    generate(recipe(place), tmp_path / "plain", workers=0, quiet=True)
    folder = paint(tmp_path / "plain" / "masks", tmp_path / "paint", 4)
    chosen = recipe(place, postprocess=[{"name": "painted", "folder": str(folder)}])
    generate(chosen, tmp_path / "run", workers=0, quiet=True)
    for index in range(len(TAGS)):
        mask = masks.read_mask(tmp_path / "run" / "masks" / f"p{index}.png")
        plain = masks.read_mask(tmp_path / "plain" / "masks" / f"p{index}.png")
        assert (mask[:, :4] == 255).all()
        np.testing.assert_array_equal(mask[:, 4:], plain[:, 4:])


def test_digests_and_not_paths_decide_what_is_done(place: Path, tmp_path: Path) -> None:
    generate(recipe(place), tmp_path / "plain", workers=0, quiet=True)
    folder = paint(tmp_path / "plain" / "masks", tmp_path / "paint", 4)
    steps = {"postprocess": [{"name": "painted", "folder": str(folder)}]}
    generate(recipe(place, **steps), tmp_path / "run", workers=0, quiet=True)
    moved = shutil.copytree(folder, tmp_path / "moved")
    steps = {"postprocess": [{"name": "painted", "folder": str(moved)}]}
    again = generate(recipe(place, **steps), tmp_path / "run", workers=0, quiet=True)
    assert (again.done, again.skipped) == (0, len(TAGS))
    (moved / "p3.bin").write_bytes(bytes(len((moved / "p3.bin").read_bytes())))
    with pytest.raises(UsageError, match=r"recipe\.postprocess\.0\.folder"):
        generate(recipe(place, **steps), tmp_path / "run", workers=0, quiet=True)


def test_a_missing_file_is_named(place: Path, tmp_path: Path) -> None:
    steps = {"postprocess": [{"name": "painted", "folder": str(tmp_path)}]}
    with pytest.raises(DataError, match=r"p0\.bin: is no file"):
        generate(recipe(place, **steps), tmp_path / "run", workers=0, quiet=True)


def test_a_refiner_is_handed_the_network_of_another_run(place: Path, tmp_path: Path) -> None:
    refine = [{"name": "normalise"}, {"name": "confidence", "run": str(place / "run")}]
    weighed = [{"method": {"name": "cam"}, "refine": refine}]
    generate(recipe(place, maps=weighed), tmp_path / "run", workers=0, quiet=True)
    generate(recipe(place), tmp_path / "plain", workers=0, quiet=True)
    shares = []
    for folder in ("run", "plain"):
        files = sorted((tmp_path / folder / "masks").iterdir())
        shares.append(np.mean([(masks.read_mask(file) > 0).mean() for file in files]))
    assert 0 < shares[0] < shares[1], "probabilities below one leave less foreground"
    wrong = [{"method": {"name": "cam"}, "refine": [refine[0], {**refine[1], "run": "nowhere"}]}]
    with pytest.raises(DataError, match="nowhere: no such classifier"):
        generate(recipe(place, maps=wrong), tmp_path / "other", workers=0, quiet=True)
