"""The suite over every loss, the limits that the papers name, and the cases worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from pseudolabel import registry
from pseudolabel.weights import import_torchvision
from segtrain.contracts.losses import *  # noqa: F403
from segtrain.contracts.losses import batch, value_of


def run(name: str, logits: torch.Tensor, labels: torch.Tensor, **params: Any) -> torch.Tensor:
    """A loss of a batch of one forward."""
    component = registry.get("losses", name)
    return value_of(component, component.params.model_validate(params), logits, labels)


def pixels(probabilities: list[list[float]], labels: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (1, C+1, 1, P) with these probabilities, a list a pixel, and labels (1, 1, P)."""
    logits = torch.tensor(probabilities).log().T[None, :, None]
    return logits, torch.tensor(labels)[None, None]


def of_truth(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Probability of the label at every labelled pixel: (P,)."""
    rows = logits.softmax(dim=1).movedim(1, -1)[labels != 255]
    return rows.gather(1, labels[labels != 255][:, None])[:, 0]


def test_every_component_of_the_kind_is_here() -> None:
    assert set(registry.names("losses")) == {
        "cross_entropy", "balanced_cross_entropy", "generalized_cross_entropy", "symmetric_cross_entropy",
        "dice", "lovasz",
    }  # fmt: skip


def test_the_losses_differ() -> None:
    values = {round(run(name, *batch()).item(), 4) for name in registry.names("losses")}
    assert len(values) == len(registry.names("losses"))


def test_cross_entropy_by_hand() -> None:
    logits, labels = pixels([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]], [0, 1, 255])
    assert run("cross_entropy", logits, labels).item() == pytest.approx((math.log(2) - math.log(0.8)) / 2)
    smoothed = -(0.8 * math.log(0.5) + 0.1 * math.log(0.25) * 2)  # 0.7 + 0.3 / 3 and 0.3 / 3
    assert run("cross_entropy", logits[..., :1], labels[..., :1], label_smoothing=0.3).item() == (
        pytest.approx(smoothed)
    )


def test_balanced_of_equal_sides_is_the_plain_mean() -> None:
    logits, labels = pixels(
        [[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.6, 0.2, 0.2]], [0, 1, 2, 0]
    )
    balanced, plain = (run(name, logits, labels) for name in ("balanced_cross_entropy", "cross_entropy"))
    torch.testing.assert_close(balanced, plain)


def test_a_group_without_pixels_leaves_the_other_alone() -> None:
    logits, labels = batch()
    ground = torch.where(labels == 255, 255, 0)
    value = run("balanced_cross_entropy", logits, ground)
    torch.testing.assert_close(value, run("cross_entropy", logits, ground) / 2)


def test_generalized_is_cross_entropy_at_a_small_q() -> None:
    plain = run("cross_entropy", *batch())
    torch.testing.assert_close(run("generalized_cross_entropy", *batch(), q=1e-5), plain, rtol=1e-4, atol=0)
    assert run("generalized_cross_entropy", *batch(), q=0.1) < 0.95 * plain


def test_generalized_is_half_the_absolute_error_at_one() -> None:
    logits, labels = batch()
    truth = torch.nn.functional.one_hot(labels[labels != 255], 5)
    rows = logits.softmax(dim=1).movedim(1, -1)[labels != 255]
    expected = (rows - truth).abs().sum(dim=1).mean() / 2
    torch.testing.assert_close(run("generalized_cross_entropy", logits, labels, q=1.0), expected)


def test_gradient_of_generalized_is_that_of_cross_entropy_times_a_power() -> None:
    logits, labels = batch()
    gradients = []
    for name, params in (("generalized_cross_entropy", {"q": 0.7}), ("cross_entropy", {})):
        leaf = logits.clone().requires_grad_()
        run(name, leaf, labels, **params).backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad.movedim(1, -1)[labels != 255])
    expected = of_truth(logits, labels)[:, None] ** 0.7 * gradients[1]
    torch.testing.assert_close(gradients[0], expected, rtol=1e-4, atol=1e-8)


def test_symmetric_without_its_reverse_is_cross_entropy() -> None:
    value = run("symmetric_cross_entropy", *batch(), alpha=1.0, beta=0.0)
    torch.testing.assert_close(value, run("cross_entropy", *batch()))


def test_symmetric_without_cross_entropy_is_the_absolute_error() -> None:
    logits, labels = batch()
    missing = (1 - of_truth(logits, labels)).mean()
    error = run("symmetric_cross_entropy", logits, labels, alpha=0.0, log_zero=-2.0)
    torch.testing.assert_close(error, 2 * missing)  # the absolute error is twice what the label lacks
    reverse = run("symmetric_cross_entropy", logits, labels, alpha=0.0)
    torch.testing.assert_close(reverse / 9.210340371976182, missing)  # the authors clamp 0 at 1e-4


def test_symmetric_with_both_weights_zero_is_refused() -> None:
    with pytest.raises(ValidationError, match="alpha and beta are both 0; one of them must be above 0"):
        registry.get("losses", "symmetric_cross_entropy").params(alpha=0.0, beta=0.0)


@pytest.mark.parametrize(
    ("name", "key", "refused", "taken"),
    [
        ("cross_entropy", "label_smoothing", (-0.1, 1.0), (0.0, 0.99)),
        ("balanced_cross_entropy", "label_smoothing", (-0.1, 1.0), (0.0, 0.99)),
        ("generalized_cross_entropy", "q", (0.0, 1.01), (0.01, 1.0)),
        ("symmetric_cross_entropy", "alpha", (-0.1,), (0.0, 6.0)),
        ("symmetric_cross_entropy", "beta", (-0.1,), (0.0, 5.0)),
        ("symmetric_cross_entropy", "log_zero", (0.0, 4.0), (-4.0,)),
    ],
)
def test_bounds_are_those_of_the_formula(
    name: str, key: str, refused: tuple[float, ...], taken: tuple[float, ...]
) -> None:
    component = registry.get("losses", name)
    for value in refused:
        with pytest.raises(ValidationError, match=key):
            component.params.model_validate({key: value})
    for value in taken:
        assert component.params.model_validate({key: value}).as_dict()[key] == value


def test_dice_by_hand() -> None:
    logits, labels = pixels([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.1, 0.1, 0.8]], [0, 0, 255])
    # one class is present: both pixels hold 0.75 of it, and it has two pixels
    assert run("dice", logits, labels).item() == pytest.approx(1 - 2 * 0.75 / (0.75 + 2))
    # two classes: 0.5 of each in its own pixel, 0.75 of each in all
    assert run("dice", *pixels([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]], [0, 1])).item() == pytest.approx(
        1 - 2 * 0.5 / 1.75
    )


def test_lovasz_by_hand() -> None:
    logits, labels = pixels([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.1, 0.8]], [0, 1, 255])
    # background: mistakes 0.4 (other) and 0.3 (own), losses 1 - 1/2 and 1 - 0/2; class 1: 0.5 (own), 0.2
    expected = ((0.4 * 0.5 + 0.3 * 0.5) + (0.5 * 1 + 0.2 * 0)) / 2
    assert run("lovasz", logits, labels).item() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_of_sure_predictions_they_are_one_minus_the_score(seed: int) -> None:
    """Lovász gives one minus mean IoU, Dice one minus the mean F score, over the classes present."""
    logits, labels = batch(seed=seed)
    rows, truth = logits.argmax(dim=1)[labels != 255], labels[labels != 255]
    ious = []
    for c in truth.unique():
        own, predicted = truth == c, rows == c
        ious.append(float((own & predicted).sum() / (own | predicted).sum()))
    sure = torch.nn.functional.one_hot(logits.argmax(dim=1), 5).movedim(-1, 1) * 1e4
    assert 0 < sum(ious) < len(ious) == 4
    assert run("lovasz", sure, labels).item() == pytest.approx(1 - sum(ious) / 4, abs=1e-6)
    scores = [2 * iou / (1 + iou) for iou in ious]
    assert run("dice", sure, labels).item() == pytest.approx(1 - sum(scores) / 4, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_they_are_those_of_segmentation_models_pytorch_where_every_class_is_present(seed: int) -> None:
    logits, labels = batch(seed=seed)
    logits = logits[:, :4]
    assert set(labels.unique().tolist()) == {0, 1, 2, 3, 255}
    import_torchvision()  # before smp, which imports it
    import segmentation_models_pytorch as smp

    theirs = {
        "dice": smp.losses.DiceLoss("multiclass", ignore_index=255),
        "lovasz": smp.losses.LovaszLoss("multiclass", ignore_index=255),
    }
    for name, loss in theirs.items():
        torch.testing.assert_close(run(name, logits, labels), loss(logits, labels), rtol=1e-5, atol=1e-6)
