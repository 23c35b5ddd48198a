"""Superpixels kept on disk: found again, never mistaken, never trusted when damaged."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.contracts.inputs import image as make_image
from pseudolabel.errors import MachineError
from pseudolabel.superpixels import cache, slic
from pseudolabel.superpixels.engine import Superpixels, kept_in, segments

IMAGE = make_image(30, 40).numpy()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever the engine runs."""
    count: list[int] = []
    real = slic.slic

    def counted(*args: object) -> object:
        count.append(1)
        return real(*args)

    monkeypatch.setattr(slic, "slic", counted)
    return count


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_made_once_and_read_after(tmp_path: Path, computed: list[int]) -> None:
    bare = segments(IMAGE, Superpixels())
    with kept_in(tmp_path / "kept"):
        first, second = segments(IMAGE, Superpixels()), segments(IMAGE, Superpixels())
    assert len(computed) == 2  # without the folder, and once with it
    assert np.array_equal(bare, first)
    assert np.array_equal(bare, second)
    assert second.dtype == np.int32
    assert second.flags.writeable
    assert len(files(tmp_path)) == 1
    segments(IMAGE, Superpixels())
    assert len(computed) == 3, "outside the block nothing is read"


def test_whatever_decides_the_labels_has_its_own_file(tmp_path: Path, monkeypatch) -> None:
    other, turned = IMAGE.copy(), IMAGE.reshape(40, 30, 3)
    other[3, 3, 1] ^= 1
    with kept_in(tmp_path):
        for image in (IMAGE, other, turned):
            segments(image, Superpixels())
        for settings in ({"segments": 50}, {"compactness": 9.0}, {"sigma": 0.5}, {"engine": "felzenszwalb"}):
            segments(IMAGE, Superpixels(**settings))
        assert len(files(tmp_path)) == 7
        monkeypatch.setattr(cache, "_version", lambda package: "another")
        segments(IMAGE, Superpixels())
    assert len(files(tmp_path)) == 8


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "other labels", "no line", "swapped"])
def test_a_damaged_file_is_made_again(tmp_path: Path, computed: list[int], damage: str) -> None:
    with kept_in(tmp_path):
        labels = segments(IMAGE, Superpixels())
        (path,) = files(tmp_path)
        data = path.read_bytes()
        head, _, body = data.partition(b"\n")
        path.write_bytes(
            {
                "cut": data[:-20],
                "empty": b"",
                "flipped": data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
                "other labels": head + b"\n" + cache._encoded(labels * 0, "x").partition(b"\n")[2],
                "no line": body,
                "swapped": json.dumps({**json.loads(head), "key": "0" * 64}).encode() + b"\n" + body,
            }[damage]
        )
        assert np.array_equal(segments(IMAGE, Superpixels()), labels)
    assert len(computed) == 2
    assert path.read_bytes() == data, "and put in order"


def test_a_thread_does_not_inherit_the_folder(tmp_path: Path) -> None:
    with kept_in(tmp_path), ThreadPoolExecutor(1) as threads:
        threads.submit(segments, IMAGE, Superpixels()).result()
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    with kept_in(tmp_path / "kept"), pytest.raises(MachineError, match="kept"):
        segments(IMAGE, Superpixels())
