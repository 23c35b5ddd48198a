"""What every loss keeps: `pytest --pyargs segtrain.contracts.losses`.

A component from another package is tested as soon as its entry point is installed. Traits looked at:
`additive` (whether the values of a batch's forwards add up to the batch's loss; it must be declared, and the
suite tries it), `groups` (of an additive loss: a function of the labels that gives the groups of pixels whose
means are averaged; without it all labelled pixels are one group), `oracles` (see
`pseudolabel.contracts.oracles`). An oracle takes logits (B, C+1, h, w) float64, labels (B, h, w) and the
parameters as keywords, and gives the loss of a batch of one forward.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pseudolabel import registry
from pseudolabel.contracts.inputs import beyond_bounds, variants
from pseudolabel.contracts.oracles import oracle_of
from pseudolabel.registry import Component, Parameters
from segtrain.loss import Loss, LossState

NAMES = registry.names("losses")
SPLITS = [[[0], [1], [2], [3]], [[3, 1], [0, 2]], [[2], [0, 3, 1]], [[1, 3, 0, 2]]]  # images of each forward


@pytest.fixture(params=NAMES)
def loss(request: pytest.FixtureRequest) -> Component:
    return registry.get("losses", request.param)


def batch(size: tuple[int, int] = (5, 6), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (4, 5, h, w) and labels of four classes with 255 between; the last class is absent.

    The second image is background alone, the last one has no labelled pixel.
    """
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(4, 5, *size, generator=draw)
    labels = torch.randint(0, 4, (4, *size), generator=draw)
    labels[torch.rand(labels.shape, generator=draw) < 0.3] = 255
    labels[1] = torch.where(labels[1] == 255, 255, 0)
    labels[3] = 255
    return logits, labels


def cases() -> dict[str, tuple[Tensor, Tensor]]:
    """Batches by a name for the test's id."""
    logits, labels = batch()
    pixel, one_label = logits[:1, :, :1, :1], torch.full_like(labels, 255)
    one_label[2, 2, 2] = 1
    return {
        "batch": (logits, labels),
        "every class": (logits[:1, :4], labels[:1]),
        "background": (logits, torch.where(labels == 255, 255, 0)),
        "foreground": (logits, torch.where(labels == 0, 255, labels)),
        "no label": (logits, torch.full_like(labels, 255)),
        "one pixel of a class": (pixel, torch.full((1, 1, 1), 2)),
        "one pixel of background": (pixel, torch.zeros(1, 1, 1, dtype=torch.long)),
        "one labelled pixel": (logits, one_label),
        "as predicted": (40 * logits, logits.argmax(dim=1)),
        "never as predicted": (40 * logits, logits.argmin(dim=1)),
    }  # fmt: skip


CASES = cases()


def value_of(loss: Component, params: Parameters, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of a batch of one forward, as the training asks for it."""
    chosen = Loss(loss, params)
    return chosen.value(logits, labels, chosen.counts(labels))


def value_and_gradient(
    loss: Component, params: Parameters, logits: Tensor, labels: Tensor, forwards: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """The sum of the forwards' values and its gradient.

    Args:
        loss, params: what is tested.
        logits, labels: of the batch.
        forwards: of the batch: (index of the images, index of the columns).
    """
    chosen, leaf = Loss(loss, params), logits.clone().requires_grad_()
    counts = torch.stack([chosen.counts(labels[i][..., c]) for i, c in forwards]).sum(dim=0)
    values = [chosen.value(leaf[i][..., c], labels[i][..., c], counts) for i, c in forwards]
    total = torch.stack(values).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    return total.detach(), gradient


@pytest.mark.parametrize("case", CASES)
def test_equals_its_oracle(loss: Component, case: str) -> None:
    oracle = oracle_of(loss)
    logits, labels = CASES[case]
    for params in variants(loss):
        expected = oracle(logits.double().numpy(), labels.numpy(), **params.as_dict())
        value = value_of(loss, params, logits, labels)
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert case != "batch" or expected > 0.1, "a loss near 0 would show little"
        # float32 sums over 120 pixels; 1 - x of a share x keeps an absolute error
        np.testing.assert_allclose(value.item(), expected, rtol=1e-5, atol=1e-6)


def test_parameters_change_the_loss(loss: Component) -> None:
    defaults = value_of(loss, loss.params(), *batch()).item()
    for params in variants(loss):
        if params != loss.params():
            assert value_of(loss, params, *batch()).item() != pytest.approx(defaults, rel=1e-3), params


@pytest.mark.parametrize("case", ["batch", "background", "one pixel of a class"])
def test_gradient_equals_central_differences_of_the_oracle(loss: Component, case: str) -> None:
    oracle = oracle_of(loss)
    logits, labels = CASES[case][0].double()[:2, :, :2, :3], CASES[case][1][:2, :2, :3]
    params, leaf = loss.params(), logits.clone().requires_grad_()
    state = LossState(Loss(loss, params).counts(labels))
    value = loss.run(leaf, labels, state, params)  # the component itself keeps float64
    (gradient,) = torch.autograd.grad(value, leaf)
    step, array = 1e-5, logits.numpy()
    expected = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        above, below = array.copy(), array.copy()
        above[index] += step
        below[index] -= step
        values = [oracle(a, labels.numpy(), **params.as_dict()) for a in (above, below)]
        expected[index] = (values[0] - values[1]) / (2 * step)
    assert np.abs(expected).max() > 1e-3, "the case must have a slope"
    # the error of central differences: the third derivative times the step squared, and 1e-16 / step
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_an_additive_loss_does_not_depend_on_how_a_batch_is_split(
    loss: Component, split: list[list[int]]
) -> None:
    if not loss.traits["additive"]:
        pytest.skip(f"{loss.name} does not add up")
    logits, labels = batch()
    columns = [torch.tensor([0, 4, 5]), torch.tensor([3, 1, 2])]
    everything = torch.arange(logits.shape[-1])
    for params in variants(loss):
        undivided = value_and_gradient(loss, params, logits, labels, [(torch.arange(4), everything)])
        for parts in ([everything], columns):
            forwards = [(torch.tensor(images), part) for images in split for part in parts]
            torch.testing.assert_close(
                value_and_gradient(loss, params, logits, labels, forwards), undivided, rtol=1e-5, atol=1e-7
            )


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_a_loss_that_does_not_add_up_is_averaged_by_labelled_pixels(
    loss: Component, split: list[list[int]]
) -> None:
    if loss.traits["additive"]:
        pytest.skip(f"{loss.name} adds up")
    oracle = oracle_of(loss)
    logits, labels = batch()
    for params in variants(loss):
        forwards = [(torch.tensor(images), torch.arange(logits.shape[-1])) for images in split]
        value, gradient = value_and_gradient(loss, params, logits, labels, forwards)
        weights = [int((labels[i] != 255).sum()) for i, _ in forwards]
        arrays = [(logits[i].double().numpy(), labels[i].numpy()) for i, _ in forwards]
        expected = np.average([oracle(*pair, **params.as_dict()) for pair in arrays], weights=weights)
        np.testing.assert_allclose(value.item(), expected, rtol=1e-5)
        assert gradient.isfinite().all()


def test_additive_is_declared_truthfully(loss: Component) -> None:
    logits, labels = batch()
    everything = torch.arange(logits.shape[-1])
    undivided, _ = value_and_gradient(loss, loss.params(), logits, labels, [(torch.arange(4), everything)])
    halves = [(torch.tensor(images), everything) for images in ([0, 1], [2, 3])]
    parts, _ = value_and_gradient(loss, loss.params(), logits, labels, halves)
    assert loss.traits["additive"] == torch.allclose(parts, undivided, rtol=1e-5)


def test_no_labelled_pixel_gives_zero_with_a_graph(loss: Component) -> None:
    logits, labels = batch()
    for params in variants(loss):
        chosen, leaf = Loss(loss, params), logits.clone().requires_grad_()
        nothing = torch.full_like(labels, 255)
        for counts in (
            chosen.counts(nothing),
            chosen.counts(labels),
        ):  # the whole batch, or one forward of it
            value = chosen.value(leaf, nothing, counts)
            assert value.item() == 0
            (gradient,) = torch.autograd.grad(value, leaf)
            assert torch.equal(gradient, torch.zeros_like(logits)), params


def test_pixels_of_255_never_count(loss: Component) -> None:
    logits, labels = batch()
    other = torch.where((labels == 255)[:, None], 50 * logits.flip(1) + 3, logits)
    for params in variants(loss):
        leaf = other.clone().requires_grad_()
        value = value_of(loss, params, leaf, labels)
        torch.testing.assert_close(value, value_of(loss, params, logits, labels), rtol=1e-6, atol=0)
        (gradient,) = torch.autograd.grad(value, leaf)
        ignored = (labels == 255)[:, None].expand_as(gradient)
        assert not gradient[ignored].any(), params
        assert gradient[~ignored].any(), params


@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("right", [True, False])
def test_extreme_logits_stay_finite(loss: Component, size: float, right: bool) -> None:
    _, labels = batch()
    wanted = torch.where(labels == 255, 0, labels)
    leaf = torch.nn.functional.one_hot(wanted if right else (wanted + 1) % 5, 5).movedim(-1, 1).float() * size
    leaf = (leaf - size / 2).requires_grad_()
    for params in variants(loss):
        value = value_of(loss, params, leaf, labels)
        (gradient,) = torch.autograd.grad(value, leaf)
        assert value.isfinite(), params
        assert gradient.isfinite().all(), params


def test_logits_of_half_precision_give_float32(loss: Component) -> None:
    logits, labels = batch()
    for dtype in (torch.bfloat16, torch.float16):
        value = value_of(loss, loss.params(), logits.to(dtype), labels)
        assert value.dtype == torch.float32
        rounded = value_of(loss, loss.params(), logits.to(dtype).float(), labels)
        assert torch.equal(value, rounded)


def test_foreground_classes_in_another_order_give_the_same(loss: Component) -> None:
    logits, labels = batch()
    order = torch.tensor([0, 3, 1, 4, 2])  # the class that each row of logits held before
    rows = torch.cat([order.argsort(), torch.full((251,), 255)])
    for params in variants(loss):
        torch.testing.assert_close(
            value_of(loss, params, logits[:, order], rows[labels]),
            value_of(loss, params, logits, labels),
            rtol=1e-6, atol=0,
        )  # fmt: skip


def test_images_and_pixels_in_another_order_give_the_same(loss: Component) -> None:
    logits, labels = batch()
    for params in variants(loss):
        turned = value_of(loss, params, logits.flip(0, 2, 3), labels.flip(0, 1, 2))
        torch.testing.assert_close(turned, value_of(loss, params, logits, labels), rtol=1e-6, atol=0)


def test_inputs_are_left_as_they_were(loss: Component) -> None:
    logits, labels = batch()
    before = logits.clone(), labels.clone()
    for params in variants(loss):
        value_of(loss, params, logits, labels)
        assert torch.equal(logits, before[0])
        assert torch.equal(labels, before[1])


def test_bounds_refuse_the_value_beyond(loss: Component) -> None:
    for key, value in beyond_bounds(loss):
        with pytest.raises(ValidationError, match=key):
            loss.params.model_validate({key: value})


def test_declares_its_sum_and_says_its_source(loss: Component) -> None:
    assert isinstance(loss.traits.get("additive"), bool), "declare additive=True or additive=False"
    assert loss.traits["additive"] or "groups" not in loss.traits, "only an additive loss has groups"
    assert all(field.description for field in loss.params.model_fields.values())
    assert "Source:" in registry.documentation("losses", loss.name)


def test_gpu_gives_what_the_cpu_gives(loss: Component) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    logits, labels = batch((33, 29))
    for params in variants(loss):
        there = value_of(loss, params, logits.cuda(), labels.cuda())
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), value_of(loss, params, logits, labels), rtol=1e-5, atol=1e-6)
