"""The confusion matrix and its figures: the worked example, the oracle, absent classes, large counts."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pseudolabel.errors import UsageError
from pseudolabel.metrics import confusion as metrics
from pseudolabel.metrics.confusion import READINGS, averaged_ids, by_region, confusion, figures
from pseudolabel.metrics.regions import region_matrices
from pseudolabel.records import LabelSpace
from tests.golden.worked_example import ABSTAINING, PREDICTION, REGION, TRUTH
from tests.oracles import metrics as oracles


def scores(prediction, reading="background", names=3, **options):
    total, dr, ndr = (m[0] for m in region_matrices(TRUTH, prediction[None], REGION, names))
    return figures(total, reading, dr=dr, ndr=ndr, **options)


@pytest.mark.parametrize("reading", READINGS)
def test_worked_example(reading):
    evaluation = scores(PREDICTION, reading)
    assert evaluation.confusion[:, :3].tolist() == [[9, 1, 0], [1, 4, 1], [1, 1, 3]]
    wanted = {
        "miou": 7 / 12,
        "fg_recall": 0.633333,
        "fg_precision": 0.708333,
        "pixel_accuracy": 0.761905,
        "dr_recall": 0.875,
        "ndr_recall": 0.416667,
        "coverage": 1.0,
        "fg_hit": 0.818182,
    }
    for name, value in wanted.items():
        assert getattr(evaluation, name) == pytest.approx(value, abs=5e-7), name
    assert evaluation.iou.tolist() == [0.75, 0.5, 0.5]
    assert evaluation.recall.tolist() == [0.9, 4 / 6, 0.6]
    assert evaluation.precision.tolist() == [9 / 11, 4 / 6, 0.75]
    assert evaluation.pooled == pytest.approx(
        {"dr_recall": 0.833333, "ndr_recall": 0.4, "fg_recall": 0.636364}, abs=5e-7
    )
    assert evaluation.legacy == pytest.approx(
        {"dr_miou_legacy": 0.708333, "ndr_miou_legacy": 0.222222}, abs=5e-7
    )
    assert evaluation.classes_averaged == 3


EXAMPLE_WITH_255 = {
    "background": (
        [[9, 1, 0], [2, 3, 1], [1, 1, 3]],
        (9 / 13, 3 / 8, 3 / 6),
        (0.522436, 0.55, 0.675, 0.75, 0.416667),
    ),
    "ignore": (
        [[8, 1, 0], [1, 3, 1], [0, 1, 3]],
        (8 / 10, 3 / 7, 3 / 5),
        (0.609524, 0.675, 0.675, 0.833333, 0.5),
    ),
    "wrong": (
        [[8, 1, 0, 1], [1, 3, 1, 1], [0, 1, 3, 1]],
        (8 / 11, 3 / 8, 3 / 6),
        (0.534091, 0.55, 0.675, 0.75, 0.416667),
    ),
}


@pytest.mark.parametrize("reading", READINGS)
def test_worked_example_with_a_predicted_255(reading):
    matrix, ious, wanted = EXAMPLE_WITH_255[reading]
    evaluation = scores(ABSTAINING, reading)
    assert evaluation.confusion.tolist() == matrix
    assert evaluation.iou.tolist() == pytest.approx(ious, abs=1e-12)
    got = (
        evaluation.miou,
        evaluation.fg_recall,
        evaluation.fg_precision,
        evaluation.dr_recall,
        evaluation.ndr_recall,
    )
    assert got == pytest.approx(wanted, abs=5e-7)
    assert evaluation.coverage == pytest.approx(18 / 21)


def test_raw_chainercv_figure_is_not_ours():
    """Growing the matrix to 256 classes would give `wrong` times 3/4."""
    assert scores(ABSTAINING, "wrong").miou * 3 / 4 == pytest.approx(0.400568, abs=5e-7)


def test_absent_class_is_left_out_of_the_mean():
    evaluation = scores(PREDICTION, names=4)
    assert math.isnan(evaluation.iou[3])
    assert evaluation.miou == pytest.approx(7 / 12)
    assert evaluation.classes_averaged == 3
    plain = evaluation.plain(LabelSpace(("background", "a", "b", "c")))
    assert plain["iou"] == {"background": 0.75, "a": 0.5, "b": 0.5, "c": None}
    assert plain["confusion"][3] == [0, 0, 0, 0]


def test_missed_and_invented_classes():
    matrix = np.array([[0, 0, 0, 0], [5, 0, 4, 0], [0, 0, 0, 0]], np.int64)
    result = figures(matrix)
    assert result.iou[0] == 0
    assert result.iou[1] == 0
    assert math.isnan(result.precision[1])
    assert result.iou[2] == 0
    assert math.isnan(result.recall[2])


def test_nothing_labelled_is_undefined():
    result = figures(confusion(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8), 3))
    plain = result.plain(LabelSpace(("background", "a", "b")))
    assert plain["miou"] is None
    assert plain["classes_averaged"] == 0
    assert {plain[k] for k in ("fg_recall", "fg_precision", "fg_hit", "coverage", "dr_recall")} == {None}


def test_average_over_limits_means_and_not_the_matrix():
    every, some = scores(PREDICTION), scores(PREDICTION, average_over=(0, 2))
    assert some.miou == pytest.approx((0.75 + 0.5) / 2)
    assert some.classes_averaged == 2
    assert (some.fg_recall, some.fg_precision) == (0.6, 0.75)
    assert (some.dr_recall, some.ndr_recall) == (1.0, pytest.approx(1 / 3))
    assert some.averaged["dr_recall"] == 1
    np.testing.assert_array_equal(some.confusion, every.confusion)
    assert some.pooled == every.pooled
    assert some.fg_hit == every.fg_hit


def test_unknown_class_in_average_over_is_refused():
    space = LabelSpace(("background", "horse", "sheep"))
    assert averaged_ids(space, ["sheep", "background", "sheep"]) == (0, 2)
    assert averaged_ids(space, None) is None
    with pytest.raises(UsageError, match="'shep' is not a class; did you mean 'sheep'"):
        averaged_ids(space, ["background", "shep"])
    with pytest.raises(UsageError, match="no class is named"):
        averaged_ids(space, [])


ids = st.sampled_from([0, 1, 2, 3, 255])
pairs = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(*(hnp.arrays(np.uint8, shape, elements=ids) for _ in range(2)))
)


@settings(max_examples=60, deadline=None)
@given(pairs, st.sampled_from(READINGS))
def test_equals_its_oracle(masks, reading):
    truth, prediction = masks
    matrix = confusion(truth, prediction, 4)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == oracles.confusion(truth, prediction, 4)
    by_class, counted = oracles.scored(truth, prediction, 4, reading)
    actual = figures(matrix, reading)
    got = np.stack([actual.iou, actual.recall, actual.precision], axis=1)
    np.testing.assert_allclose(got, np.array(by_class), rtol=1e-15)
    means = [actual.miou, actual.fg_recall, actual.fg_precision]
    wanted = [oracles.nanmean(column) for column in zip(*by_class, strict=True)]
    wanted[1:] = [oracles.nanmean([row[k] for row in by_class[1:]]) for k in (1, 2)]
    np.testing.assert_allclose(means, wanted, rtol=1e-14)
    hits = [p > 0 for t, p in counted if t > 0]
    np.testing.assert_allclose(actual.fg_hit, sum(hits) / len(hits) if hits else math.nan)
    known = prediction[truth != 255]
    np.testing.assert_allclose(actual.coverage, (known != 255).mean() if known.size else math.nan)


def test_several_predictions_and_regions_are_counted_apart():
    random = np.random.default_rng(0)
    truth = random.choice([0, 1, 2, 255], size=(9, 7)).astype(np.uint8)
    predictions = random.choice([0, 1, 2, 255], size=(3, 9, 7)).astype(np.uint8)
    region = random.integers(0, 3, size=(9, 7)).astype(np.uint8)
    counts = by_region(truth, predictions, region, 3, 3)
    for t, prediction in enumerate(predictions):
        for r in range(3):
            kept = np.where(region == r, truth, 255).astype(np.uint8)
            assert counts[t, r].tolist() == oracles.confusion(kept, prediction, 3)


def test_images_in_any_order_and_any_grouping_give_the_same_figures():
    random = np.random.default_rng(1)
    matrices = [
        confusion(*random.choice([0, 1, 2, 255], size=(2, 8, 8)).astype(np.uint8), 3) for _ in range(13)
    ]
    together = figures(sum(matrices))
    shuffled = [matrices[i] for i in random.permutation(13)]
    grouped = sum(shuffled[:5]) + (sum(shuffled[5:6]) + sum(shuffled[6:]))
    assert figures(grouped).plain(LabelSpace(("b", "x", "y"))) == together.plain(LabelSpace(("b", "x", "y")))


def test_counts_beyond_32_bits():
    big = 2**40
    matrix = np.array([[3 * big, big, 0], [big, 2 * big, big]], np.int64)
    result = figures(matrix, "wrong")
    assert result.iou.tolist() == [0.6, 0.4]
    assert result.coverage == 7 / 8
    assert figures(matrix).confusion.tolist() == [[3 * big, big], [2 * big, 2 * big]]


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.full((1, 2), 4, np.uint8), np.zeros((1, 2), np.uint8), r"truth holds 4 \(2 pixels\)"),
        (np.zeros((1, 2), np.uint8), np.full((1, 2), 7, np.uint8), r"prediction holds 7 \(2 pixels\)"),
        (np.full((1, 2), 255, np.uint8), np.full((1, 2), 7, np.uint8), "prediction holds 7"),
        (np.zeros((1, 2), np.uint8), np.zeros((2, 1), np.uint8), "prediction is 2 x 1, its truth 1 x 2"),
        (np.zeros((1, 2), np.int64), np.zeros((1, 2), np.uint8), "truth is int64"),
    ],
)
def test_foreign_values_and_sizes_are_refused(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        confusion(truth, prediction, 3)


def test_inputs_are_left_alone():
    truth, prediction = TRUTH.copy(), ABSTAINING.copy()
    matrix = confusion(truth, prediction, 3)
    before = matrix.copy()
    for reading in READINGS:
        figures(matrix, reading)
    np.testing.assert_array_equal(matrix, before)
    np.testing.assert_array_equal(truth, TRUTH)
    np.testing.assert_array_equal(prediction, ABSTAINING)


def test_an_image_takes_milliseconds():
    random = np.random.default_rng(2)
    truth, prediction = random.integers(0, 21, size=(2, 375, 500)).astype(np.uint8)
    best = math.inf
    for _ in range(20):
        start = time.thread_time()
        metrics.confusion(truth, prediction, 21)
        best = min(best, time.thread_time() - start)
    assert best < 0.02  # 1 to 2 ms of a core; ten times that on a slow one
