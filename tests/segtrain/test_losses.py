"""Losses: equal to their oracles, nothing where nothing is labelled, the same however a batch is split."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segtrain.losses import GROUPS, PixelLoss
from tests.oracles import losses as oracles

NAMES = sorted(GROUPS)


def a_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, 4, 5, 6, generator=generator)
    labels = torch.randint(0, 4, (3, 5, 6), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    labels[1] = torch.where(labels[1] == 255, 255, 0)  # one image of background alone
    return logits, labels


def value(loss: PixelLoss, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return loss.value(logits, labels, loss.counts(labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", NAMES)
def test_equals_its_oracle(name: str, smoothing: float) -> None:
    logits, labels = a_batch()
    expected = getattr(oracles, name)(logits.double().numpy(), labels.numpy(), smoothing)
    found = value(PixelLoss(name, smoothing), logits, labels)
    assert expected > 1, "a loss near 0 would show little"
    np.testing.assert_allclose(found.item(), expected, rtol=2e-6)  # float32 sums over 63 pixels


def test_the_losses_differ() -> None:
    logits, labels = a_batch()
    found = {round(value(PixelLoss(name), logits, labels).item(), 4) for name in NAMES}
    assert len(found) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_f18_a_batch_of_255_alone_is_zero_with_a_graph(name: str) -> None:
    logits, _ = a_batch()
    logits.requires_grad_()
    found = value(PixelLoss(name, 0.1), logits, torch.full((3, 5, 6), 255))
    assert found.item() == 0
    found.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", NAMES)
def test_f18_does_not_depend_on_how_a_batch_is_split(name: str) -> None:
    loss = PixelLoss(name)
    logits, labels = a_batch()
    labels[2] = 255  # a part without a labelled pixel
    whole = logits.clone().requires_grad_()
    value(loss, whole, labels).backward()
    counts, parts = loss.counts(labels), logits.clone().requires_grad_()
    total = sum(loss.value(parts[i : i + 1], labels[i : i + 1], counts) for i in range(3))
    assert isinstance(total, torch.Tensor)
    total.backward()
    torch.testing.assert_close(total, value(loss, logits, labels))
    torch.testing.assert_close(parts.grad, whole.grad)


def test_a_group_without_pixels_leaves_the_other_alone() -> None:
    logits, labels = a_batch()
    ground = torch.where(labels == 255, 255, 0)
    found = value(PixelLoss("balanced_cross_entropy"), logits, ground)
    expected = value(PixelLoss("cross_entropy"), logits, ground) / 2
    torch.testing.assert_close(found, expected)
