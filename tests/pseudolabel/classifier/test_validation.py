"""Scores of a validation list: batches change nothing, figures by hand, an image that fails ends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.classifier import validation
from pseudolabel.classifier.network import Classifier
from pseudolabel.errors import DataError
from pseudolabel.records import ImageRecord, LabelSpace
from pseudolabel.training.device import launch

VIEW = validation.Preprocessing(
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    long_side=40,
    batch=3,
    workers=2,
)
FABRIC = launch("cpu", "float32")


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    """Seven images of two sizes, mixed."""
    rng = np.random.default_rng(1)
    listed = []
    for number in range(7):
        size = ((48, 60), (60, 48))[number * number % 3]
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
        listed.append(ImageRecord(str(number), path, (1 + number % 2,)))
    return listed


@pytest.fixture
def network() -> Classifier:
    torch.manual_seed(0)
    return Classifier("test_resnet", 2, output_stride=16)


def test_split_of_the_work_changes_nothing(network: Classifier, records: list[ImageRecord]) -> None:
    advanced: list[int] = []
    expected = validation.logits_of(network, records, VIEW, FABRIC, advanced.append)
    assert sum(advanced) == 7
    assert np.ptp(expected, axis=0).min() > 1e-3  # the images differ
    for batch, workers in ((1, 0), (2, 3), (7, 1)):
        view = replace(VIEW, batch=batch, workers=workers)
        actual = validation.logits_of(network, records, view, FABRIC, advanced.append)
        np.testing.assert_allclose(actual, expected, atol=1e-5)  # float32 sums of another batch
    backwards = validation.logits_of(network, records[::-1], VIEW, FABRIC, advanced.append)
    np.testing.assert_allclose(backwards[::-1], expected, atol=1e-5)


def test_whole_images_go_in_at_the_long_side(network: Classifier, records: list[ImageRecord]) -> None:
    sizes: set[tuple[int, ...]] = set()
    features = network.features

    def watched(images: torch.Tensor) -> torch.Tensor:
        sizes.add(tuple(images.shape[2:]))
        return features(images)

    network.features = watched  # type: ignore[method-assign]
    validation.logits_of(network, records, VIEW, FABRIC, lambda _: None)
    assert sizes == {(32, 40), (40, 32)}
    sizes.clear()
    validation.logits_of(network, records, replace(VIEW, long_side=0), FABRIC, lambda _: None)
    assert sizes == {(48, 60), (60, 48)}


def test_score_by_hand() -> None:
    space = LabelSpace(("background", "cat", "dog", "cow"))
    records = [ImageRecord(str(n), Path(), labels) for n, labels in enumerate([(1,), (1, 2), (2,), ()])]
    logits = np.array([[3, 0, 0], [1, 2, 0], [2, 1, 0], [0, 3, 0]], np.float32)
    evaluation = validation.score(logits, records, space)
    cat, dog = (1 / 1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2
    assert evaluation["ap"] == {"cat": pytest.approx(cat), "dog": pytest.approx(dog), "cow": None}
    assert evaluation["positives"] == {"cat": 2, "dog": 2, "cow": 0}
    assert (evaluation["images"], evaluation["classes_averaged"]) == (4, 2)
    assert evaluation["map"] == pytest.approx((cat + dog) / 2)
    assert evaluation["common"] == {"at_least": 10, "classes": [], "map": None}
    many = validation.score(np.tile(logits, (5, 1)), records * 5, space)
    assert many["common"]["classes"] == ["cat", "dog"]


def test_a_image_that_fails_ends_it(network: Classifier, records: list[ImageRecord]) -> None:
    intact = records[2].image.read_bytes()
    records[2].image.write_bytes(intact[: len(intact) // 2])
    with pytest.raises(DataError, match=r"2\.png"):
        validation.logits_of(network, records, VIEW, FABRIC, lambda _: None)
