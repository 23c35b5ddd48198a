"""Scales and flips: what they must equal, and what they must not depend on."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import interpolate

from pseudolabel import registry
from pseudolabel.aggregators.multiscale import Multiscale
from pseudolabel.contracts.networks import Small, random_images
from pseudolabel.explain.method import BoundMethod, build, on_image
from pseudolabel.explain.model import Explained
from pseudolabel.records import Attribution, Targets

KEYS = [(0, "a"), (0, "b"), (0, "c")]
LABELS = [(1, 3), (2,), (1, 2, 4)]
ONE = {"scales": (1.0,), "flip": False}


def line(method: str, **params: object) -> BoundMethod:
    component = registry.get("methods", method)
    aggregator = registry.get("aggregators", "multiscale")
    around = [(aggregator, aggregator.params.model_validate(params))] if params else []
    return build((component, component.params()), around)


def maps(bound: BoundMethod, images: torch.Tensor | None = None, batch: int = 16) -> torch.Tensor:
    images = random_images() if images is None else images
    attribution = bound.explain(Explained(Small(), batch=batch), images, Targets.of(LABELS), KEYS)
    return bound.reduce(attribution.values)


@pytest.mark.parametrize("accumulate", ["reduced", "signed"])
@pytest.mark.parametrize("method", ["saliency", "cam"])
def test_one_scale_and_no_flip_is_the_method_itself(method: str, accumulate: str) -> None:
    actual, wanted = maps(line(method, **ONE, accumulate=accumulate)), maps(line(method))
    if accumulate == "reduced" or method == "saliency":
        assert torch.equal(actual, on_image(wanted, (26, 35)))
    else:  # signed votes are resized before the ReLU
        assert actual.shape == (6, 26, 35)
        assert (actual <= on_image(wanted, (26, 35)) + 1e-6).all()


@pytest.mark.parametrize("accumulate", ["reduced", "signed"])
@pytest.mark.parametrize("method", ["saliency", "cam"])
def test_the_map_of_a_mirrored_image_is_mirrored(method: str, accumulate: str) -> None:
    bound = line(method, scales=(1.0, 0.5, 1.5), accumulate=accumulate)
    wanted, actual = maps(bound), maps(bound, random_images().flip(-1)).flip(-1)
    scale = float(wanted.abs().amax())
    torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5 * scale)
    plain = line(method)
    moved = (maps(plain, random_images().flip(-1)).flip(-1) - maps(plain)).abs().amax()
    assert float(moved) > 0.01 * scale, "the network itself must not be symmetric"


@pytest.mark.parametrize("antialias", [False, True])
def test_signed_is_the_gradient_of_the_sum_of_the_copies_logits(antialias: bool) -> None:
    scales = (1.0, 0.4, 1.7)
    bound = line("saliency", scales=scales, accumulate="signed", antialias=antialias)
    model = Explained(Small())
    attribution = bound.explain(model, random_images(), Targets.of(LABELS), KEYS)
    images = random_images().requires_grad_()
    logits = []
    for scale in scales:
        size = (round(26 * scale), round(35 * scale))
        copies = interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=antialias)
        logits += [model.network(copies), model.network(copies.flip(-1))]
    targets = Targets.of(LABELS)
    for row, (image, label) in enumerate(zip(targets.images, targets.classes, strict=True)):
        score = torch.stack([copy[image, label - 1] for copy in logits])
        (wanted,) = torch.autograd.grad(score.sum(), images, retain_graph=True)
        torch.testing.assert_close(
            attribution.values[row], wanted[image], rtol=1e-4, atol=1e-5 * float(wanted.abs().amax())
        )
        torch.testing.assert_close(attribution.logits[row], score.mean().detach(), rtol=1e-4, atol=1e-6)


def test_each_copy_has_the_same_say_where_divided() -> None:
    both = maps(line("cam", scales=(1.0, 0.5), divide="max"))
    parts = [maps(line("cam", scales=(scale,), divide="max")) for scale in (1.0, 0.5)]
    torch.testing.assert_close(both, parts[0] + parts[1], rtol=1e-5, atol=1e-6)
    alone = maps(line("cam", **ONE, divide="max"))
    assert alone.amax(dim=(1, 2)).tolist() == pytest.approx([1.0] * 6)


def test_an_empty_map_stays_empty_where_divided() -> None:
    def nothing(model: object, images: torch.Tensor, targets: Targets, keys: object) -> Attribution:
        return Attribution(torch.zeros(len(targets.images), 1, 4, 4), torch.zeros(len(targets.images)))

    inner = BoundMethod(nothing, lambda values: values[:, 0], "paste")
    divided = maps(registry.get("aggregators", "multiscale").run(inner, Multiscale(divide="max")))
    assert divided.isfinite().all()
    assert not divided.any()


def test_copies_of_one_size_share_forwards() -> None:
    model = Explained(Small(), batch=4)
    shapes: list[tuple[int, ...]] = []
    model.network.trunk[0].register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    line("cam", scales=(1.0, 0.5)).explain(model, random_images(), Targets.of(LABELS), KEYS)
    assert shapes == [(4, 3, 26, 35), (2, 3, 26, 35), (4, 3, 13, 18), (2, 3, 13, 18)]


def test_the_smallest_copy_is_one_pixel() -> None:
    bound = line("cam", scales=(0.01, 1.0))
    assert maps(bound, random_images(3, 9, 300)).isfinite().all()


def test_the_field_s_scales_are_the_default() -> None:
    params = Multiscale()
    assert (params.scales, params.flip, params.divide) == ((1.0, 0.5, 1.5, 2.0), True, "none")
    assert line("cam", scales=params.scales).views == 8


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, 0.0)}, "scales"),
        ({"scales": (9.0,)}, "scales"),
        ({"divide": "sum"}, "divide"),
        ({"divide": "max", "accumulate": "signed"}, "max is of reduced maps"),
    ],
)
def test_parameters_are_refused(bad: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Multiscale.model_validate(bad)
