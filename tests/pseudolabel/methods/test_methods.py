"""CAM against its definition, saliency against finite differences, and their identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pseudolabel import registry
from pseudolabel.classifier.network import Classifier
from pseudolabel.contracts.networks import Small, functions, random_images
from pseudolabel.explain.method import BoundMethod, build, on_image
from pseudolabel.explain.model import Explained
from pseudolabel.methods import grad_cam_pp
from pseudolabel.methods._channels import OneMap, one_map
from pseudolabel.records import Targets

KEYS = [(0, "a"), (0, "b"), (0, "c")]


def method(name: str, **params: object) -> BoundMethod:
    component = registry.get("methods", name)
    return build((component, component.params.model_validate(params)))


def test_cam_equals_its_definition_on_a_real_backbone() -> None:
    torch.manual_seed(1)
    network = Classifier("test_efficientnet", 6).eval()
    images, line = random_images(2, 97, 64), method("cam")
    attribution = line.explain(Explained(network), images, Targets.of([(2, 5), (6,)]), KEYS[:2])
    with torch.no_grad():
        features = network.features(images)
        rows = network.head.weight[[1, 4, 5]]
        signed = (rows[:, :, None, None] * features[[0, 0, 1]]).sum(dim=1)
        logits = network(images)[[0, 0, 1], [1, 4, 5]]
    torch.testing.assert_close(
        attribution.values[:, 0], signed, rtol=1e-5, atol=1e-5 * float(signed.abs().max())
    )
    torch.testing.assert_close(line.reduce(attribution.values), attribution.values[:, 0].clamp(min=0))
    assert (attribution.values < 0).any(), "signs are kept until reduce"
    # the mean of the signed map is the logit
    torch.testing.assert_close(attribution.values.mean(dim=(1, 2, 3)), logits, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(attribution.logits, logits, rtol=1e-4, atol=1e-6)


def test_cam_needs_one_forward_for_any_number_of_classes() -> None:
    model = Explained(Small())
    runs: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda *_: runs.append(1))
    method("cam").explain(model, random_images(), Targets.of([(1, 2, 3, 4)] * 3), KEYS)
    assert len(runs) == 1


def test_saliency_needs_one_forward_and_a_backward_a_slot() -> None:
    model = Explained(Small())
    model.probe()
    forwards: list[int] = []
    backwards: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda *_: forwards.append(1))
    model.network.trunk[6].register_full_backward_hook(lambda *_: backwards.append(1))
    method("saliency").explain(model, random_images(), Targets.of([(1, 3), (2,), (1, 2, 4)]), KEYS)
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
    images = random_images(1, 9, 11).double()
    line = method("saliency")
    attribution = line.explain(model, images, Targets.of([(1, 4)]), KEYS[:1])
    assert attribution.values.dtype == torch.float64
    plain, step = functions(network), 1e-4
    image = images[0].numpy()
    for row, label in zip(attribution.values.numpy(), (1, 4), strict=True):
        expected = np.zeros_like(row)
        for place in np.ndindex(*row.shape):
            moved = [image.copy(), image.copy()]
            moved[0][place] += step
            moved[1][place] -= step
            expected[place] = (plain.logit(moved[0], label) - plain.logit(moved[1], label)) / (2 * step)
        # second order in the step
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())


class Backbone(Classifier):
    """A real backbone with drawn weights."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        super().__init__("test_efficientnet", 6)


def test_channels_by_hand() -> None:
    gradient = torch.tensor([3.0, -4.0, 0.5]).view(1, 3, 1, 1)
    by_name = {
        channels: float(one_map(gradient, OneMap(channels=channels)))
        for channels in ("max_abs", "mean_abs", "l2", "signed_sum")
    }
    assert by_name == pytest.approx(
        {"max_abs": 4.0, "mean_abs": 2.5, "l2": 25.25**0.5, "signed_sum": -0.5}, rel=1e-6
    )


def of(name: str, network: nn.Module, images: Tensor, **params: object) -> Tensor:
    """Attribution of the labels of as many images."""
    labels = [(1, 3), (2,), (1, 2, 4)][: len(images)]
    return method(name, **params).explain(Explained(network), images, Targets.of(labels), KEYS).values


@pytest.mark.parametrize("name", ["grad_cam", "hires_cam"])
@pytest.mark.parametrize("network", [Small, Backbone])
def test_on_a_pooled_linear_head_the_others_are_cam(name: str, network: type[nn.Module]) -> None:
    # in float64, so that only the formula is looked at; the map's cells are not square in number
    images = random_images(3, 33, 70).double()
    double = network().double()
    signed = of("cam", double, images)
    cells = signed[0].numel()
    torch.testing.assert_close(of(name, double, images), signed / cells, rtol=1e-9, atol=1e-12)
    reduced = method(name).reduce(of(name, double, images))
    torch.testing.assert_close(reduced, signed[:, 0].relu() / cells, rtol=1e-9, atol=1e-12)


def test_layer_cam_keeps_what_raises_the_class() -> None:
    # where no weight of the class is below 0 nothing is left out, and LayerCAM is HiResCAM
    network = Small()
    network.head.weight.data.abs_()
    torch.testing.assert_close(
        of("layer_cam", network, random_images()), of("hires_cam", network, random_images())
    )
    more = of("layer_cam", Small(), random_images()) - of("hires_cam", Small(), random_images())
    assert -1e-6 < float(more.min()) < float(more.max()) > 0.1


def test_grad_cam_pp_by_hand() -> None:
    output = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])  # sums 4 and 2
    gradient = torch.tensor([[[[0.5, -1.0]], [[1.0, 0.25]]]])
    # channel 1: 0.5 / (2 + 0.5 * 4); channel 2: 1 / (2 + 1 * 2) + 0.25 / (2 + 0.25 * 2)
    weights = 0.125, 0.25 + 0.1
    combined = grad_cam_pp._combined(output, gradient)
    assert combined.flatten().tolist() == pytest.approx([weights[0] + 2 * weights[1], 3 * weights[0]])
    # a denominator of 0 gives no weight, and no infinity
    pole = grad_cam_pp._combined(torch.tensor([[[[-2.0]]]]), torch.tensor([[[[1.0]]]]))
    assert float(pole) == 0.0


class Unbiased(Small):
    """No bias anywhere: the network is homogeneous, so that input times gradient adds up to the logit."""

    def __init__(self) -> None:
        super().__init__()
        for module in self.trunk:
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.zero_()
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)


def test_input_x_gradient_adds_up_to_the_logit() -> None:
    network = Unbiased().double().eval()
    images = random_images().double()
    actual = of("input_x_gradient", network, images).sum(dim=(1, 2, 3))
    wanted = network(images)[[0, 0, 1, 2, 2, 2], [0, 2, 1, 0, 1, 3]]
    torch.testing.assert_close(actual, wanted.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("network", "rule", "steps", "tolerance"),
    [
        (Smooth, "gauss_legendre", 32, 1e-12),
        (Smooth, "midpoint", 32, 2e-4),
        (Small, "gauss_legendre", 300, 1e-2),
        (Small, "midpoint", 300, 1e-2),
    ],
)
@pytest.mark.parametrize("baseline", ["mean_colour", "own_colour"])
def test_integrated_gradients_add_up_to_the_rise_of_the_logit(
    network: type[Small], rule: str, steps: int, tolerance: float, baseline: str
) -> None:
    # float64; a ReLU's gradient jumps along the path, which leaves an error of about one step
    images = random_images(3, 9, 11).double()
    double = network().double().eval()
    attribution = of("integrated_gradients", double, images, rule=rule, steps=steps, baseline=baseline)
    empty = (
        images.mean(dim=(2, 3), keepdim=True).expand_as(images) if baseline == "own_colour" else 0 * images
    )
    with torch.no_grad():
        rise = (double(images) - double(empty))[[0, 0, 1, 2, 2, 2], [0, 2, 1, 0, 1, 3]]
    error = (attribution.sum(dim=(1, 2, 3)) - rise).abs() / rise.abs()
    assert float(error.max()) < tolerance


def test_integrated_gradients_share_forwards_of_at_most_a_batch() -> None:
    model = Explained(Small(), batch=4)
    model.probe()
    sizes: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    line = method("integrated_gradients", steps=5)
    line.explain(model, random_images(3), Targets((0, 2), (1, 4)), [*KEYS])
    assert sizes == [3, 4, 4, 2]  # the images, then two of them at five places
    assert line.views == 6


@pytest.mark.parametrize("name", registry.names("methods"))
def test_bf16_gives_float32_near_float32(name: str) -> None:
    params = registry.get("methods", name).traits.get("small", {})
    labels = Targets.of([(1, 3), (2,), (1, 2, 4)])
    model = Explained(Small(), precision="bf16")
    near = method(name, **params).explain(model, random_images(), labels, KEYS)
    exact = method(name, **params).explain(Explained(Small()), random_images(), labels, KEYS)
    assert near.values.dtype == near.logits.dtype == torch.float32
    assert near.totals is not None
    assert near.totals.dtype == torch.float32
    assert 1e-5 < float((near.values - exact.values).norm() / exact.values.norm()) < 0.2
    torch.testing.assert_close(near.logits, exact.logits, rtol=0.05, atol=0.05)


def test_saliency_without_a_gradient_is_an_error() -> None:
    network = Small()
    nn.init.zeros_(network.head.weight)
    with pytest.raises(ValueError, match="no gradient reaches the input"):
        method("saliency").explain(Explained(network), random_images(), Targets.of([(1,)] * 3), KEYS)
    # CAM needs none
    attribution = method("cam").explain(Explained(network), random_images(), Targets.of([(1,)] * 3), KEYS)
    assert not attribution.values.any()


def test_maps_go_straight_to_the_image() -> None:
    maps = torch.arange(6.0).view(1, 2, 3)
    wanted = nn.functional.interpolate(maps[None], size=(5, 7), mode="bilinear", align_corners=False)[0]
    assert torch.equal(on_image(maps, (5, 7)), wanted)
    assert on_image(maps, (2, 3)) is maps
