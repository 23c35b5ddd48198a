"""CAM against its definition, saliency against finite differences, and their identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pseudolabel import registry
from pseudolabel.classifier.network import Classifier
from pseudolabel.contracts.networks import Small, functions, pictures
from pseudolabel.maps._bound import BoundMethod, build, on_image
from pseudolabel.maps._channels import one_map
from pseudolabel.maps._explained import Explained
from pseudolabel.maps.saliency import Saliency
from pseudolabel.records import Targets

KEYS = [(0, "a"), (0, "b"), (0, "c")]


def method(name: str, **params: object) -> BoundMethod:
    brick = registry.get("methods", name)
    return build((brick, brick.params.model_validate(params)))


def test_cam_equals_its_definition_on_a_real_backbone() -> None:
    torch.manual_seed(1)
    network = Classifier("test_efficientnet", 6).eval()
    images, line = pictures(2, 97, 64), method("cam")
    evidence = line.explain(Explained(network), images, Targets.of([(2, 5), (6,)]), KEYS[:2])
    with torch.no_grad():
        features = network.features(images)
        rows = network.head.weight[[1, 4, 5]]
        signed = (rows[:, :, None, None] * features[[0, 0, 1]]).sum(dim=1)
        logits = network(images)[[0, 0, 1], [1, 4, 5]]
    torch.testing.assert_close(
        evidence.values[:, 0], signed, rtol=1e-5, atol=1e-5 * float(signed.abs().max())
    )
    torch.testing.assert_close(line.finish(evidence.values), evidence.values[:, 0].clamp(min=0))
    assert (evidence.values < 0).any(), "signs are kept until finish"
    # the mean of the signed map is the logit
    torch.testing.assert_close(evidence.values.mean(dim=(1, 2, 3)), logits, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(evidence.logits, logits, rtol=1e-4, atol=1e-6)


def test_cam_needs_one_forward_for_any_number_of_classes() -> None:
    model = Explained(Small())
    runs: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda *_: runs.append(1))
    method("cam").explain(model, pictures(), Targets.of([(1, 2, 3, 4)] * 3), KEYS)
    assert len(runs) == 1


def test_saliency_needs_one_forward_and_a_backward_a_slot() -> None:
    model = Explained(Small())
    model.probe()
    forwards: list[int] = []
    backwards: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda *_: forwards.append(1))
    model.network.trunk[6].register_full_backward_hook(lambda *_: backwards.append(1))
    method("saliency").explain(model, pictures(), Targets.of([(1, 3), (2,), (1, 2, 4)]), KEYS)
    assert (len(forwards), len(backwards)) == (1, 3)


class Smooth(Small):
    """The small network with softplus for ReLU: finite differences meet no kink."""

    def __init__(self) -> None:
        super().__init__()
        for index in (2, 5, 7):
            self.trunk[index] = nn.Softplus()


def test_saliency_equals_central_differences_of_the_logit() -> None:
    network = Smooth()
    model = Explained(network.double())
    images = pictures(1, 9, 11).double()
    line = method("saliency")
    evidence = line.explain(model, images, Targets.of([(1, 4)]), KEYS[:1])
    assert evidence.values.dtype == torch.float64
    plain, step = functions(network), 1e-4
    image = images[0].numpy()
    for row, label in zip(evidence.values.numpy(), (1, 4), strict=True):
        expected = np.zeros_like(row)
        for place in np.ndindex(*row.shape):
            moved = [image.copy(), image.copy()]
            moved[0][place] += step
            moved[1][place] -= step
            expected[place] = (plain.logit(moved[0], label) - plain.logit(moved[1], label)) / (2 * step)
        # second order in the step
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())


def test_channels_by_hand() -> None:
    gradient = torch.tensor([3.0, -4.0, 0.5]).view(1, 3, 1, 1)
    found = {
        channels: float(one_map(gradient, Saliency(channels=channels)))
        for channels in ("max_abs", "mean_abs", "l2", "signed_sum")
    }
    assert found == pytest.approx(
        {"max_abs": 4.0, "mean_abs": 2.5, "l2": 25.25**0.5, "signed_sum": -0.5}, rel=1e-6
    )


def test_saliency_without_a_gradient_is_an_error() -> None:
    network = Small()
    nn.init.zeros_(network.head.weight)
    with pytest.raises(ValueError, match="no gradient reaches the input"):
        method("saliency").explain(Explained(network), pictures(), Targets.of([(1,)] * 3), KEYS)
    # CAM needs none
    evidence = method("cam").explain(Explained(network), pictures(), Targets.of([(1,)] * 3), KEYS)
    assert not evidence.values.any()


def test_maps_go_straight_to_the_image() -> None:
    maps = torch.arange(6.0).view(1, 2, 3)
    wanted = nn.functional.interpolate(maps[None], size=(5, 7), mode="bilinear", align_corners=False)[0]
    assert torch.equal(on_image(maps, (5, 7)), wanted)
    assert on_image(maps, (2, 3)) is maps
