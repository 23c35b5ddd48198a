"""Model-noise: its size, its draws, and that training and validation go through it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pseudolabel.classifier import validation
from pseudolabel.classifier.noise import perturbed
from pseudolabel.classifier.start import fingerprint
from pseudolabel.contracts.networks import random_images
from pseudolabel.draws import generator
from pseudolabel.recipes.schema import Noise, TrainRecipe
from pseudolabel.records import ImageRecord
from pseudolabel.training.device import launch
from tests.pseudolabel.classifier.test_learning import RECIPE

KEYS = [(0, "noise", name, 0) for name in "abc"]
BERNOULLI = Noise(kind="bernoulli", keep=0.9)


def test_gaussian_is_a_share_of_each_images_range() -> None:
    images = random_images(3, 80, 90) * torch.tensor([1.0, 5.0, 0.1]).view(3, 1, 1, 1)
    added = perturbed(images, KEYS, Noise(kind="gaussian", sigma=0.2)) - images
    for image, noise, key in zip(images.numpy(), added.numpy(), KEYS, strict=True):
        spread = 0.2 * (image.max() - image.min())
        assert noise.std() == pytest.approx(spread, rel=0.02)
        assert abs(noise.mean()) < 0.02 * spread
        drawn = torch.randn(3, 80, 90, generator=generator(*key)).numpy()
        np.testing.assert_allclose(noise, spread * drawn, atol=1e-5 * spread + 1e-6)


@pytest.mark.parametrize("per_channel", [False, True])
def test_bernoulli_removes_pixels(per_channel: bool) -> None:
    images = random_images(3, 80, 90)
    noisy = perturbed(images, KEYS, Noise(kind="bernoulli", keep=0.7, per_channel=per_channel))
    kept = noisy != 0
    assert torch.equal(noisy[kept], images[kept])
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.01)
    together = bool((kept == kept[:, :1]).all())
    assert together is not per_channel


@pytest.mark.parametrize("noise", [Noise(kind="gaussian"), BERNOULLI])
def test_a_image_does_not_depend_on_the_others(noise: Noise) -> None:
    images = random_images()
    together = perturbed(images, KEYS, noise)
    assert torch.equal(together[[2, 0]], perturbed(images[[2, 0]], [KEYS[2], KEYS[0]], noise))
    other = [(0, "noise", "a", 1), *KEYS[1:]]
    assert not torch.equal(together[0], perturbed(images, other, noise)[0]), "an epoch draws its own"
    assert torch.equal(images, random_images())


def test_validation_is_perturbed_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mean(torch.nn.Module):
        classes = 1

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (images != 0).float().mean(dim=(1, 2, 3))[:, None]

    monkeypatch.setattr(validation.images, "read_size", lambda path: (40, 50))
    monkeypatch.setattr(validation.images, "read_image", lambda path: np.full((40, 50, 3), 200, np.uint8))
    records = [ImageRecord(name, Path(name), (1,)) for name in "ab"]
    plain = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "long_side": 0, "batch": 2, "workers": 0}
    fabric = launch("cpu", "float32")
    views: list[Any] = [validation.Preprocessing(**plain, noise=noise) for noise in (None, BERNOULLI)]
    clean, masked = (validation.logits_of(Mean(), records, view, fabric, lambda _: None) for view in views)  # type: ignore[arg-type]
    assert clean[:, 0].tolist() == [1, 1]
    assert masked[:, 0] == pytest.approx([0.9, 0.9], abs=0.03)
    assert masked[0, 0] != masked[1, 0]


def test_a_recipe_without_noise_keeps_its_fingerprint() -> None:
    plain = TrainRecipe.model_validate_json(json.dumps(RECIPE))
    noisy = TrainRecipe.model_validate_json(json.dumps({**RECIPE, "noise": {"kind": "gaussian"}}))
    space = type("Data", (), {"records": (), "space": type("S", (), {"names": ("background", "cat")})})()
    prints = [fingerprint(chosen, "w", space, None, (0, 0, 0), (1, 1, 1)) for chosen in (plain, noisy)]
    assert "noise" not in prints[0]["recipe"]
    assert prints[1]["recipe"]["noise"]["sigma"] == 0.15
