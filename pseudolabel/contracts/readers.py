"""What every reader keeps: `pytest --pyargs pseudolabel.contracts.readers`.

A component from another package is tested as soon as its entry point is installed. Its oracle (see
`pseudolabel.contracts.oracles`) is called with an empty folder, writes a small data set there whose list is
not in alphabetical order, and returns the reader's settings and a function that says, without the reader,
what must come out: class names (the background alone where the reader knows no classes), and (id, labels,
mask as (H, W) uint8 or None) in the order of the list. A record's mask is the path of a PNG or a mask source
(`pseudolabel.records.MaskSource`), for instance of polygons.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pseudolabel import registry
from pseudolabel.contracts.inputs import beyond_bounds
from pseudolabel.contracts.oracles import oracle_of
from pseudolabel.images import read_image, read_size
from pseudolabel.masks import mask_digest, read_mask
from pseudolabel.records import BACKGROUND, IGNORE, Dataset, ImageRecord
from pseudolabel.registry import Component

NAMES = registry.names("readers")


class ReaderSample:
    """A reader with a data set of its oracle: `dataset` is the first reading, `again()` another one."""

    def __init__(self, component: Component, folder: Path) -> None:
        self.component, self.folder = component, folder
        self.settings, self.expected = oracle_of(component)(folder)
        self.dataset = self.again()

    def again(self) -> Dataset:
        dataset: Dataset = self.component.run(self.component.params.model_validate(self.settings))
        return dataset


@pytest.fixture(scope="module", params=NAMES)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ReaderSample:
    return ReaderSample(registry.get("readers", request.param), tmp_path_factory.mktemp(request.param))


def test_equals_its_oracle_in_the_order_of_the_list(sample: ReaderSample) -> None:
    names, rows = sample.expected()
    assert sample.dataset.space.names == names
    assert [record.id for record in sample.dataset.records] == [name for name, _, _ in rows]
    for record, (name, labels, mask) in zip(sample.dataset.records, rows, strict=True):
        assert record.labels == labels, name
        assert (record.mask is None) == (mask is None), name
        if record.mask is not None:
            np.testing.assert_array_equal(read_mask(record.mask), mask, err_msg=name)
    several = len({labels for _, labels, _ in rows}) > 1
    assert several or len(names) == 1, "the sample must show several label sets"


def test_ids_are_unique_text_and_labels_ascend(sample: ReaderSample) -> None:
    records, space = sample.dataset.records, sample.dataset.space
    assert records
    assert all(type(record) is ImageRecord and type(record.id) is str and record.id for record in records)
    assert len({record.id.casefold() for record in records}) == len(records)
    for record in records:
        if record.labels is not None:
            assert list(record.labels) == sorted(set(record.labels)), record.id
            assert all(type(label) is int and 1 <= label <= space.foreground for label in record.labels)


def test_images_are_there_and_masks_fit(sample: ReaderSample) -> None:
    for record in sample.dataset.records:
        assert isinstance(record.image, Path)
        size = read_size(record.image)
        assert read_image(record.image).shape == (*size, 3)
        if record.mask is not None:
            mask = read_mask(record.mask)
            assert mask.shape == size, record.id
            known = range(1, sample.dataset.space.foreground + 1) if record.labels is None else record.labels
            assert set(np.unique(mask).tolist()) <= {BACKGROUND, IGNORE, *known}, record.id


def test_masks_have_a_digest_and_travel_to_worker_processes(sample: ReaderSample) -> None:
    sources = [record.mask for record in sample.dataset.records if record.mask is not None]
    digests = [mask_digest(source) for source in sources]
    masks = [read_mask(source) for source in sources]
    for source, digest, mask in zip(sources, digests, masks, strict=True):
        assert len(str(source).splitlines()) == 1
        assert len(str(source)) < 300, "this text names the mask in messages"
        sent = pickle.loads(pickle.dumps(source))
        assert sent == source
        assert mask_digest(sent) == digest
        np.testing.assert_array_equal(read_mask(sent), mask)
    contents = {(mask.shape, mask.tobytes()) for mask in masks}
    assert len(set(digests)) >= len(contents), "two masks that differ have two digests"


def test_parts_divide_what_the_mask_shows(sample: ReaderSample) -> None:
    folder = sample.dataset.parts
    if folder is None:
        pytest.skip("this reader knows no parts")
    for record in sample.dataset.records:
        assert record.mask is not None
        mask, parts = read_mask(record.mask), read_mask(folder / f"{record.id}.png")
        assert set(np.unique(parts).tolist()) <= {0, 1, 2, IGNORE}
        np.testing.assert_array_equal(parts == IGNORE, mask == IGNORE)
        np.testing.assert_array_equal(parts == 0, mask == BACKGROUND)


def test_reading_again_gives_the_same_and_writes_nothing(sample: ReaderSample) -> None:
    before = _tree(sample.folder)
    assert sample.again() == sample.dataset
    assert _tree(sample.folder) == before


def test_beyond_each_bound_is_refused(sample: ReaderSample) -> None:
    for key, value in beyond_bounds(sample.component):
        with pytest.raises(ValidationError, match=key):
            sample.component.params.model_validate({**sample.settings, key: value})


def _tree(folder: Path) -> dict[str, Any]:
    """Size and time of every file below a folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }
