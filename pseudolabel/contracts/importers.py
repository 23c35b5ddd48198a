"""What every importer keeps: `pytest --pyargs pseudolabel.contracts.importers`.

A component from another package is tested as soon as its entry point is installed. Its oracle (see
`pseudolabel.contracts.oracles`) is called with an empty folder, writes a small source there, and returns the
path of the source, the importer's parameters as a dict, and a function that says, without the importer, what
must come out: class names, and (id, labels or None, mask (H, W) uint8 or None, maps or None) in order, maps
being a list of a branch's (ids, values (K, h, w) float32).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

import pseudolabel
from pseudolabel import registry
from pseudolabel.contracts.exporters import contents
from pseudolabel.contracts.inputs import beyond_bounds
from pseudolabel.contracts.oracles import oracle_of
from pseudolabel.errors import DataError, PseudolabelError
from pseudolabel.pipeline.importing import import_run
from pseudolabel.records import IGNORE, Imported, ImportItem
from pseudolabel.registry import Component
from pseudolabel.runs.run import Run

NAMES = registry.names("importers")


class ImporterSample:
    """An importer with a source of its oracle; `read()` reads it."""

    def __init__(self, component: Component, folder: Path) -> None:
        self.component, self.folder = component, folder
        self.source, self.settings, self.expected = oracle_of(component)(folder)

    def read(self) -> tuple[Imported, list[ImportItem]]:
        params = self.component.params.model_validate(self.settings)
        imported: Imported = self.component.run(Path(self.source), params)
        return imported, list(imported.items)

    def overrides(self) -> Sequence[str]:
        return [f"{key}={value!r}" for key, value in self.settings.items()]


@pytest.fixture(params=NAMES)
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> ImporterSample:
    (tmp_path / "source").mkdir()
    return ImporterSample(registry.get("importers", request.param), tmp_path / "source")


def test_equals_its_oracle(sample: ImporterSample) -> None:
    imported, items = sample.read()
    names, rows = sample.expected()
    assert imported.space.names == tuple(names)
    assert [item.id for item in items] == [name for name, *_ in rows]
    for item, (name, labels, mask, maps) in zip(items, rows, strict=True):
        assert item.labels == labels, name
        assert (item.mask is None) == (mask is None), name
        if mask is not None:
            np.testing.assert_array_equal(item.mask, mask, err_msg=name)
        assert len(item.maps or ()) == len(maps or ()), name
        for scores, (ids, values) in zip(item.maps or (), maps or (), strict=True):
            assert scores.ids == tuple(ids), name
            np.testing.assert_allclose(scores.values.numpy(), values, rtol=1e-6, err_msg=name)
    assert len(rows) > 1


def test_items_are_what_a_run_folder_takes(sample: ImporterSample) -> None:
    imported, items = sample.read()
    assert len({item.id for item in items}) == len(items)
    for item in items:
        assert type(item.id) is str
        assert item.id
        assert item.mask is not None or item.maps
        for ids in (item.labels or (), *(scores.ids for scores in item.maps or ())):
            assert list(ids) == sorted(set(ids)), item.id
            assert all(1 <= label <= imported.space.foreground for label in ids), item.id
        if item.mask is not None:
            assert item.mask.dtype == np.uint8
            assert item.mask.ndim == 2
            assert set(np.unique(item.mask)) <= {*range(imported.space.foreground + 1), IGNORE}
        for scores in item.maps or ():
            assert str(scores.values.dtype) == "torch.float32"
            assert scores.values.shape[0] == len(scores.ids)
    assert all(sentence == sentence.strip() and len(sentence.splitlines()) == 1 for sentence in imported.lost)


def test_reading_again_gives_the_same_and_writes_nothing(sample: ImporterSample) -> None:
    before = contents(sample.folder)
    first, second = (sample.read()[1] for _ in range(2))
    for one_reading, other in zip(first, second, strict=True):
        assert (one_reading.id, one_reading.labels) == (other.id, other.labels)
        assert np.array_equal(one_reading.mask, other.mask)  # type: ignore[arg-type]
    assert contents(sample.folder) == before


def test_items_are_read_when_they_are_taken(sample: ImporterSample) -> None:
    imported = sample.component.run(
        Path(sample.source), sample.component.params.model_validate(sample.settings)
    )
    assert not isinstance(imported.items, list | tuple), "a million masks must not be in memory at once"
    assert len(list(itertools.islice(imported.items, 1))) == 1


def test_what_was_imported_is_a_run(sample: ImporterSample, tmp_path: Path) -> None:
    """Opened, read and exported like any other; an import without masks needs a recipe."""
    names, rows = sample.expected()
    if any(mask is None for _, _, mask, _ in rows):
        pytest.skip("this importer gives maps alone, which a recipe makes masks of")
    summary = import_run(sample.component.name, sample.source, tmp_path / "run", overrides=sample.overrides())
    assert (summary.images, summary.failed) == (len(rows), 0)
    run = Run.open(tmp_path / "run")
    assert (run.classes.names, run.ids) == (tuple(names), tuple(name for name, *_ in rows))
    for name, _, mask, maps in rows:
        np.testing.assert_array_equal(run.mask(name, verify=True), mask)
        if maps is not None:
            for scores, (_, values) in zip(run.maps(name, verify=True), maps, strict=True):
                np.testing.assert_allclose(scores.values.numpy(), values, rtol=1e-6)
    before = contents(tmp_path / "run")
    import_run(sample.component.name, sample.source, tmp_path / "run", overrides=sample.overrides())
    assert contents(tmp_path / "run") == before, "the same import is done again"
    exported = pseudolabel.export(tmp_path / "run", tmp_path / "grey", quiet=True)
    assert exported.images == len(rows)


def test_a_source_that_is_not_there_is_refused(sample: ImporterSample, tmp_path: Path) -> None:
    params = sample.component.params.model_validate(sample.settings)
    with pytest.raises(PseudolabelError, match="nowhere"):
        list(sample.component.run(tmp_path / "nowhere", params).items)
    with pytest.raises(DataError, match="nowhere"):
        import_run(
            sample.component.name, tmp_path / "nowhere", tmp_path / "run", overrides=sample.overrides()
        )


def test_beyond_each_bound_is_refused(sample: ImporterSample) -> None:
    for key, value in beyond_bounds(sample.component):
        with pytest.raises(ValidationError, match=key):
            sample.component.params.model_validate({**sample.settings, key: value})
