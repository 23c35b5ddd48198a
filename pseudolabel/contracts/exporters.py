"""What every exporter keeps: `pytest --pyargs pseudolabel.contracts.exporters`.

A component from another package is tested as soon as its entry point is installed. Its oracle (see
`pseudolabel.contracts.oracles`) reads the written folder as its consumer does, without the exporter: it is
called with the folder and the parameters as keywords, and returns the class names, the masks (H, W) uint8 by
id, and, where the form cannot hold everything, a function that says what a mask is to come back as.
"""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from pseudolabel import registry
from pseudolabel.contracts.inputs import beyond_bounds, variants
from pseudolabel.contracts.oracles import oracle_of
from pseudolabel.errors import DataError, PseudolabelError
from pseudolabel.records import IGNORE, Exported, ExportItem, ImageRecord, LabelSpace, Scores
from pseudolabel.registry import Component

NAMES = registry.names("exporters")
SPACE = LabelSpace(("background", "cat", "traffic light", "größer"))
WANTS = {"images", "maps"}
SIZES = {"2007_000032": (9, 14), "-x": (4, 2), "ü b": (1, 3), "007": (7, 7), "7": (12, 8)}
AT_ONCE = 2  # masks that an exporter may hold

Mask = NDArray[np.uint8]


@pytest.fixture(params=NAMES)
def exporter(request: pytest.FixtureRequest) -> Component:
    return registry.get("exporters", request.param)


@pytest.fixture
def items(exporter: Component, tmp_path: Path) -> Sequence[ExportItem]:
    return list(sample(exporter, tmp_path / "images"))


def mask_of(item: str) -> Mask:
    """A mask that shows every class and 255 where it is large enough."""
    height, width = SIZES[item]
    values = np.array([0, 1, IGNORE, 3, 2], np.uint8)
    places = np.add.outer(np.arange(height) // 2, np.arange(width) // 3)
    mask: Mask = values[places % len(values)]
    return mask


def sample(exporter: Component, folder: Path) -> Iterator[ExportItem]:
    """One item after the other, with what the exporter wants."""
    wants = exporter.traits.get("wants", ())
    for item in SIZES:
        mask = mask_of(item)
        labels = tuple(int(label) for label in np.unique(mask) if 0 < label < IGNORE)
        record = maps = None
        if "images" in wants:
            folder.mkdir(exist_ok=True)
            Image.new("RGB", mask.shape[::-1], (90, 60, 30)).save(folder / f"{item}.png")
            record = ImageRecord(item, folder / f"{item}.png", labels)
        if "maps" in wants:
            maps = (Scores(labels, torch.rand(len(labels), *mask.shape)),)
        yield ExportItem(item, labels, mask, record, maps)


def test_reads_back_as_the_oracle_reads_it(
    exporter: Component, items: Sequence[ExportItem], tmp_path: Path
) -> None:
    oracle = oracle_of(exporter)
    for number, params in enumerate(variants(exporter)):
        out = tmp_path / f"out-{number}"
        exported = exporter.run(iter(items), SPACE, out, params)
        names, masks, *expected = oracle(out, **params.as_dict())
        assert tuple(names) == SPACE.names
        assert set(masks) == set(SIZES), params
        assert bool(expected) == bool(exported.lost), "what is lost is said, and the oracle says how"
        back: Callable[[Mask], Mask] = expected[0] if expected else lambda mask: mask
        for item, mask in masks.items():
            assert mask.dtype == np.uint8
            np.testing.assert_array_equal(mask, back(mask_of(item)), err_msg=f"{item}, {params}")


def test_says_what_it_wrote_and_lost(
    exporter: Component, items: Sequence[ExportItem], tmp_path: Path
) -> None:
    assert set(exporter.traits.get("wants", ())) <= WANTS
    exported = exporter.run(iter(items), SPACE, tmp_path / "out", exporter.params())
    assert isinstance(exported, Exported)
    json.dumps(dict(exported.wrote), allow_nan=False)
    assert all(sentence == sentence.strip() and len(sentence.splitlines()) == 1 for sentence in exported.lost)


def test_the_same_items_give_the_same_bytes_and_stay_as_they_were(
    exporter: Component, items: Sequence[ExportItem], tmp_path: Path
) -> None:
    before = [item.mask.copy() for item in items]
    for name in ("a", "b"):
        exporter.run(iter(items), SPACE, tmp_path / name, exporter.params())
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")
    for item, mask in zip(items, before, strict=True):
        np.testing.assert_array_equal(item.mask, mask)


def test_writes_again_over_what_it_wrote(
    exporter: Component, items: Sequence[ExportItem], tmp_path: Path
) -> None:
    for _ in range(2):
        exporter.run(iter(items), SPACE, tmp_path / "out", exporter.params())
    exporter.run(iter(items), SPACE, tmp_path / "other", exporter.params())
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


def test_items_are_taken_one_by_one(exporter: Component, tmp_path: Path) -> None:
    """A million masks must not be in memory at once."""
    alive: list[weakref.ref[Mask]] = []

    def handed() -> Iterator[ExportItem]:
        for item in sample(exporter, tmp_path / "images"):
            gc.collect()
            assert sum(reference() is not None for reference in alive) <= AT_ONCE
            alive.append(weakref.ref(item.mask))
            yield item

    exporter.run(handed(), SPACE, tmp_path / "out", exporter.params())
    assert len(alive) == len(SIZES)


@pytest.mark.parametrize("item", ["", "/etc/x", "../x", "a/../../x", "a//b", "."])
def test_an_id_that_names_a_file_elsewhere_is_refused(exporter: Component, item: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    given = ExportItem(item, (1,), np.ones((2, 3), np.uint8), *beside(exporter, tmp_path))
    with pytest.raises(PseudolabelError):
        exporter.run(iter([given]), SPACE, tmp_path / "out", exporter.params())
    assert set(tmp_path.iterdir()) <= {tmp_path / "out", tmp_path / "x.png"}


def test_a_value_outside_the_classes_is_refused(exporter: Component, tmp_path: Path) -> None:
    given = ExportItem("a", (1,), np.full((2, 3), 4, np.uint8), *beside(exporter, tmp_path))
    with pytest.raises(DataError, match="4"):
        exporter.run(iter([given]), SPACE, tmp_path / "out", exporter.params())


def test_beyond_each_bound_is_refused(exporter: Component) -> None:
    for key, value in beyond_bounds(exporter):
        with pytest.raises(ValidationError, match=key):
            exporter.params.model_validate({key: value})


def beside(exporter: Component, folder: Path) -> tuple[ImageRecord | None, tuple[Scores, ...] | None]:
    """Record and maps of an image of 2 x 3 pixels, where the exporter wants them."""
    wants = exporter.traits.get("wants", ())
    record = None
    if "images" in wants:
        Image.new("RGB", (3, 2)).save(folder / "x.png")
        record = ImageRecord("x", folder / "x.png", (1,))
    return record, (Scores((1,), torch.rand(1, 2, 3)),) if "maps" in wants else None


def contents(folder: Path) -> dict[str, Any]:
    """Bytes of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
