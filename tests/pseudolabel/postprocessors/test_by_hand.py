"""Postprocessors worked out by hand on a few pixels."""

from __future__ import annotations

import pytest
import torch

from pseudolabel import registry
from pseudolabel.records import IGNORE, LabelScores

X = IGNORE


def label_scores_of(labels: list[list[int]], ids: tuple[int, ...] = (0, 1, 2)) -> LabelScores:
    """Label scores whose mask is `labels`, 255 for a pixel that is not kept."""
    mask = torch.tensor(labels)
    values = torch.stack([torch.where(mask == label, 0.8, 0.1) for label in ids])
    return LabelScores(ids, values, mask != X)


def run(name: str, labels: list[list[int]], **params: object) -> list[list[int]]:
    component = registry.get("postprocessors", name)
    image = torch.zeros(len(labels), len(labels[0]), 3, dtype=torch.uint8)
    return (
        component.run(label_scores_of(labels), image, component.params.model_validate(params)).mask().tolist()
    )


def test_every_component_of_the_kind_is_here() -> None:
    assert {"crf", "crf_exact", "unsure", "boundary", "small_regions"} <= set(
        registry.names("postprocessors")
    )


def test_unsure_by_hand() -> None:
    values = torch.tensor([[0.5, 0.5, 0.5, 0.2], [0.5, 0.25, 0.1, 0.7], [0.1, 0.3, 0.1, 0.1]])[:, None]
    label_scores = LabelScores((0, 3, 5), values, torch.ones(1, 4, dtype=torch.bool))
    component = registry.get("postprocessors", "unsure")
    image = torch.zeros(1, 4, 3, dtype=torch.uint8)
    # margins 0, 0.2, 0.4, 0.5
    masks = [
        component.run(label_scores, image, component.params(margin=m)).mask()[0].tolist()
        for m in (0.0, 0.1, 0.3, 1.0)
    ]
    assert masks == [[0, 0, 0, 3], [X, 0, 0, 3], [X, X, 0, 3], [X, X, X, X]]


def test_boundary_by_hand() -> None:
    row = [0, 0, 0, 0, 1, 1, 1, 1]
    assert run("boundary", [row], width=0) == [row]
    assert run("boundary", [row], width=1) == [[0, 0, 0, X, X, 1, 1, 1]]
    assert run("boundary", [row], width=3) == [[0, X, X, X, X, X, X, 1]]
    assert run("boundary", [row], width=50) == [[X] * 8]
    assert run("boundary", [[2, 2], [2, 2]], width=9) == [[2, 2], [2, 2]]
    # a pixel that is not kept is no label, but those beyond it are
    assert run("boundary", [[0, 0, X, 1, 1]], width=1) == [[0, 0, X, 1, 1]]
    assert run("boundary", [[0, 0, X, 1, 1]], width=2) == [[0, X, X, X, 1]]
    # the square has corners
    assert run("boundary", [[1, 0, 0], [0, 0, 0], [0, 0, 0]], width=1) == [[X, X, 0], [X, X, 0], [0, 0, 0]]


def test_boundary_is_blind_to_what_a_pixel_that_is_not_kept_would_be() -> None:
    label_scores = label_scores_of([[0, 0, 2, 0, 0]])
    label_scores.keep[0, 2] = False
    component = registry.get("postprocessors", "boundary")
    out = component.run(label_scores, torch.zeros(1, 5, 3, dtype=torch.uint8), component.params(width=1))
    assert out.mask().tolist() == [[0, 0, X, 0, 0]]


SPECKS = [
    [0, 0, 0, 2, 2, 2],
    [0, 1, 0, 2, 2, 2],
    [0, 0, 0, 2, 1, 2],
    [0, 0, 0, 2, 2, 2],
]


def test_small_regions_go_to_what_surrounds_them_or_become_ignore() -> None:
    plain = [[0, 0, 0, 2, 2, 2]] * 4
    assert run("small_regions", SPECKS, share=0.05) == plain
    assert run("small_regions", SPECKS, share=1 / 24) == SPECKS, "a region of just that share is not small"
    assert run("small_regions", SPECKS, share=0.05, to="ignore") == [
        [X if label == 1 else label for label in row] for row in SPECKS
    ]


def test_corners_do_not_join_small_regions() -> None:
    corner_to_corner = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert run("small_regions", corner_to_corner, share=0.15) == [[0] * 4] * 3


def test_small_regions_take_the_longest_border_and_of_equal_ones_the_lowest() -> None:
    # the 1 in the middle touches 0 once and 2 twice
    assert run("small_regions", [[0, 1, 2], [0, 2, 2], [0, 2, 2]], share=0.2) == [
        [0, 2, 2], [0, 2, 2], [0, 2, 2],
    ]  # fmt: skip
    assert run("small_regions", [[2, 2, 2, 1, 0, 0, 0]], share=0.2) == [[2, 2, 2, 0, 0, 0, 0]]


def test_small_regions_that_touch_only_small_ones_wait() -> None:
    assert run("small_regions", [[0, 0, 0, 0, 1, 2, 1, 2]], share=0.2) == [[0] * 8]
    chequers = [[0, 1, 0], [1, 0, 1]]
    assert run("small_regions", chequers, share=0.5) == chequers, "nothing is large: nothing changes"


def test_small_regions_in_what_is_given_up_are_given_up() -> None:
    assert run("small_regions", [[X, X, X, X, 1, X, 2, 2, 2]], share=0.2) == [[X, X, X, X, X, X, 2, 2, 2]]
    component = registry.get("postprocessors", "small_regions")
    label_scores = label_scores_of([[X, 0, 0, 0, 1, 0, 0, 0]])
    out = component.run(label_scores, torch.zeros(1, 8, 3, dtype=torch.uint8), component.params(share=0.2))
    assert out.values[:, 0, 4].tolist() == [1, 0, 0]
    assert torch.equal(out.values[:, 0, :4], label_scores.values[:, 0, :4])
    assert not out.keep[0, 0], "what was given up stays so, however small"


@pytest.mark.parametrize("name", ["unsure", "boundary", "small_regions"])
def test_nothing_is_shared_with_what_went_in(name: str) -> None:
    component = registry.get("postprocessors", name)
    label_scores = label_scores_of([[0, 0, 1], [0, 0, 1]])
    out = component.run(label_scores, torch.zeros(2, 3, 3, dtype=torch.uint8), component.params())
    out.keep[:] = False
    out.values.zero_()
    assert label_scores.keep.all()
    assert label_scores.values.any()
