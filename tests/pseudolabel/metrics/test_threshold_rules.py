"""Rules for thresholds that see no ground truth, on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from pseudolabel.metrics import threshold_rules as rules


def pixels(seed: int = 0) -> np.ndarray:
    """Scores of 4000 pixels: much weak background, a quarter of strong class."""
    random = np.random.default_rng(seed)
    weak, strong = random.gamma(2, 0.04, 3000), random.normal(0.7, 0.1, 1000)
    return np.concatenate([weak, strong]).clip(0, 1).astype(np.float32)


def counted(scores: np.ndarray) -> np.ndarray:
    return rules.histogram(scores.reshape(1, 1, -1))


def oracles(scores: np.ndarray) -> dict[str, float]:
    """The definitions, a cut at a time over the pixels themselves."""
    cuts = [cut / 1000 for cut in range(1, 1000) if 0 < (scores < cut / 1000).sum() < len(scores)]
    kept, apart = [], []
    for cut in cuts:
        low, high = scores[scores < cut].astype(float), scores[scores >= cut].astype(float)
        kept.append(low.sum() * np.log(low.mean()) + high.sum() * np.log(high.mean()))
        apart.append(len(low) * len(high) * (low.mean() - high.mean()) ** 2)
    best = {"cross_entropy": cuts[int(np.argmax(kept))], "otsu": cuts[int(np.argmax(apart))]}
    return {"mean": float(scores.mean()), **best}


@pytest.mark.parametrize("seed", range(4))
def test_histogram_rules_are_their_definitions(seed: int) -> None:
    actual, expected = rules.from_histogram(counted(pixels(seed))), oracles(pixels(seed))
    assert actual.keys() == expected.keys() == set(rules.HISTOGRAM_RULES)
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, abs=0.004), name  # bins of a thousandth
    assert 0.15 < actual["cross_entropy"] < actual["otsu"] < 0.55


def test_histograms_add_up_over_images_and_take_the_strongest_class() -> None:
    scores = pixels()
    halves = counted(scores[:1500]) + counted(scores[1500:])
    np.testing.assert_array_equal(halves, counted(scores))
    two = np.stack([scores, np.zeros_like(scores)])[:, None]
    np.testing.assert_array_equal(rules.histogram(two), counted(scores))
    assert counted(np.float32([0, 1, 1.0000001])).sum() == 3


def test_one_level_says_nothing() -> None:
    assert set(rules.from_histogram(counted(np.full(50, 0.3, np.float32))).values()) == {None}
    assert rules.from_histogram(counted(np.float32([0, 0, 1])))["otsu"] is not None


def stacked(scores: np.ndarray, values: list[float]) -> np.ndarray:
    return np.stack([(scores > value).astype(np.uint8) for value in values])


def test_stability_finds_the_plateau() -> None:
    ramp = np.linspace(0, 1, 100, dtype=np.float32)
    ramp[(ramp > 0.42) & (ramp < 0.58)] = 0.42  # no score between: masks at 0.45, 0.5, 0.55 are equal
    values = [round(0.05 * step, 2) for step in range(1, 20)]
    counts = rules.transitions(stacked(ramp[None], values), 2)
    assert counts.shape == (18, 3, 3)
    assert (counts.sum(axis=(1, 2)) == 100).all()
    index = rules.most_stable(counts)
    assert index is not None
    assert values[index] == 0.45


def test_stability_does_not_praise_empty_masks_and_reads_255_as_background() -> None:
    empty = np.zeros((3, 4, 5), np.uint8)
    assert rules.most_stable(rules.transitions(empty, 2)) is None
    masks = empty.copy()
    masks[0, 0, 0] = 1
    assert rules.most_stable(rules.transitions(masks, 2)) == 0
    masks[0, 3] = 255
    np.testing.assert_array_equal(rules.transitions(masks, 2)[0], [[14, 0, 0], [1, 0, 0], [5, 0, 0]])
    assert rules.most_stable(rules.transitions(masks, 2)) == 0


def disc(shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    """A score that falls from 1 at the middle to 0."""
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    return (1 - np.hypot(ys - 20, xs - 25) / 32).clip(0, 1).astype(np.float32)


def test_edges_finds_the_border_of_the_thing() -> None:
    scores, random = disc(), np.random.default_rng(0)
    thing = scores > 0.6
    image = np.where(thing[..., None], [180, 90, 40], [60, 120, 160]) + random.integers(-15, 16, (40, 50, 3))
    values = [round(0.1 * step, 1) for step in range(1, 10)]
    excess = rules.edge_excess(stacked(scores, values), image.astype(np.uint8))
    assert values[int(np.argmax(excess))] == 0.6


def test_edges_count_ranks_of_colour_steps_by_hand() -> None:
    image = np.zeros((1, 7, 3), np.uint8)
    image[0, 4:] = 90  # box sums step by a third of 90 from pixel 2 to 3, 3 to 4 and 4 to 5
    masks = np.array([[[0, 0, 0, 0, 1, 1, 1]], [[0, 1, 1, 1, 1, 1, 1]], [[0, 0, 0, 0, 0, 0, 0]]], np.uint8)
    # six pairs of neighbours: four without a step share the middle rank 2 of 6, two with one share 5 of 6
    excess = rules.edge_excess(masks, image)
    steps = np.abs(np.diff([0, 0, 0, 30, 60, 90, 90]))
    ranks = np.array([(steps < s).mean() + (steps == s).mean() / 2 - 0.5 for s in steps])
    np.testing.assert_allclose(excess / rules.RANKS, [ranks[3], ranks[0], 0], atol=2e-6)


def test_edges_of_a_flat_image_say_nothing() -> None:
    masks = stacked(disc(), [0.2, 0.5])
    assert not rules.edge_excess(masks, np.full((40, 50, 3), 77, np.uint8)).any()
    assert not rules.edge_excess(np.ones((2, 1, 1), np.uint8), np.zeros((1, 1, 3), np.uint8)).any()


def test_random_borders_are_worth_nothing() -> None:
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (60, 70, 3)).astype(np.uint8)
    masks = random.integers(0, 2, (5, 60, 70)).astype(np.uint8)
    share = rules.edge_excess(masks, image) / rules.RANKS / (60 * 70)
    assert np.abs(share).max() < 0.02


def test_nearest_index() -> None:
    assert rules.nearest_index(0.31, [0.1, 0.2, 0.3, 0.4]) == 2
    assert rules.nearest_index(9.0, [0.1, 0.2]) == 1
