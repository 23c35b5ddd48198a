"""DR and NDR: the oracle, the integer identity, the rule of a pixel's own class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudolabel.metrics.confusion import READINGS, figures, read
from pseudolabel.metrics.regions import discriminative, part_matrices, region_matrices
from tests.oracles import metrics as oracles


def scene(seed, shape=(7, 9)):
    random = np.random.default_rng(seed)
    truth = random.choice([0, 1, 2, 3, 255], size=shape).astype(np.uint8)
    prediction = random.choice([0, 1, 2, 3, 255], size=shape).astype(np.uint8)
    maps = random.random((2, *shape), dtype=np.float32) * random.choice([0.3, 40.0], size=(2, 1, 1))
    return truth, prediction, maps.astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["own", "any"]), st.sampled_from([0.25, 0.5, 0.9]))
def test_discriminative_equals_its_oracle(seed, rule, threshold):
    truth, _, maps = scene(seed)
    region = discriminative(truth, maps, (1, 3), threshold, rule)
    np.testing.assert_array_equal(region, oracles.discriminative(truth, maps, (1, 3), threshold, rule))


def test_scenes_are_two_sided():
    truth, _, maps = scene(0)
    own, every = (discriminative(truth, maps, (1, 3), 0.5, rule) for rule in ("own", "any"))
    foreground = (truth > 0) & (truth < 255)
    assert 0 < own.sum() < every.sum() < foreground.sum()
    assert not own[truth == 2].any(), "a class without a map has no discriminative region"
    assert every[truth == 2].any()
    assert not every[~foreground].any()


def test_threshold_is_exclusive_and_relative_to_the_largest():
    maps = np.array([[[4.0, 1.0, 1.1, 0.0]]], np.float32)
    truth = np.ones((1, 4), np.uint8)
    assert discriminative(truth, maps, (1,)).tolist() == [[True, False, True, False]]
    assert not discriminative(truth, np.zeros_like(maps), (1,), threshold=0.0).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(READINGS))
def test_dr_and_ndr_add_up_to_the_foreground_in_integers(seed, reading):
    truth, prediction, maps = scene(seed)
    region = discriminative(truth, maps, (1, 3))
    total, dr, ndr = (m[0] for m in region_matrices(truth, prediction[None], region, 4))
    assert total.tolist() == oracles.confusion(truth, prediction, 4)
    assert dr.tolist() == oracles.masked(truth, prediction, region, 4)
    assert ndr.tolist() == oracles.masked(truth, prediction, ~region, 4)
    taken, part, rest = (read(m, reading)[1:] for m in (total, dr, ndr))
    np.testing.assert_array_equal(part + rest, taken)
    hits = [np.diagonal(m, offset=1) for m in (part, rest, taken)]
    np.testing.assert_array_equal(hits[0] + hits[1], hits[2])
    np.testing.assert_array_equal(part.sum(axis=1) + rest.sum(axis=1), taken.sum(axis=1))


def test_legacy_counts_background_as_soon_as_it_is_predicted():
    truth = np.array([[1, 1, 2, 2]], np.uint8)
    region = np.array([[1, 0, 1, 0]], bool)
    clean = np.array([[[1, 2, 2, 1]]], np.uint8)
    total, dr, ndr = (m[0] for m in region_matrices(truth, clean, region, 3))
    assert figures(total, dr=dr, ndr=ndr).legacy == {"dr_miou_legacy": 1.0, "ndr_miou_legacy": 0.0}
    missing = np.array([[[0, 2, 2, 1]]], np.uint8)
    total, dr, ndr = (m[0] for m in region_matrices(truth, missing, region, 3))
    result = figures(total, dr=dr, ndr=ndr)
    assert result.legacy["dr_miou_legacy"] == pytest.approx(1 / 3)
    assert result.averaged["dr_miou_legacy"] == 3
    assert result.dr_recall == 0.5


def test_parts_and_bodies_are_counted_apart():
    truth, prediction, _ = scene(5)
    parts = np.random.default_rng(99).choice([0, 1, 2, 255], size=truth.shape).astype(np.uint8)
    part, body = (m[0] for m in part_matrices(truth, prediction[None], parts, 4))
    assert part.tolist() == oracles.masked(truth, prediction, parts == 1, 4)
    assert body.tolist() == oracles.masked(truth, prediction, parts == 2, 4)


def test_other_sizes_and_rules_are_refused():
    truth, _, maps = scene(0)
    with pytest.raises(ValueError, match="reference maps are"):
        discriminative(truth[1:], maps, (1, 3))
    with pytest.raises(ValueError, match="rule 'mine' is not one of own, any"):
        discriminative(truth, maps, (1, 3), 0.25, "mine")
