"""Several methods of one call: what sees the same views shares its forwards, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pseudolabel import registry
from pseudolabel.contracts.networks import Small, random_images
from pseudolabel.explain.method import BoundMethod, build
from pseudolabel.explain.model import Explained
from pseudolabel.explain.views import explain_together
from pseudolabel.records import Attribution, Targets

KEYS = [(0, "a"), (0, "b"), (0, "c")]
LABELS = [(1, 3), (2,), (1, 2, 4)]
FOUR, THREE = {"scales": (1.0, 0.5, 1.5, 2.0)}, {"scales": (1.0, 0.5, 1.5), "divide": "max"}


def method(name: str, *aggregators: tuple[str, dict[str, Any]], **params: Any) -> BoundMethod:
    component = registry.get("methods", name)
    steps = [
        (aggregator, aggregator.params.model_validate(own))
        for aggregator, own in ((registry.get("aggregators", kind), own) for kind, own in aggregators)
    ]
    return build((component, component.params.model_validate(params)), steps)


def model(batch: int = 16) -> tuple[Explained, list[tuple[int, ...]]]:
    explained = Explained(Small(), batch=batch)
    explained.probe()
    forwards: list[tuple[int, ...]] = []
    explained.network.trunk[0].register_forward_hook(
        lambda _, inputs, __: forwards.append(tuple(inputs[0].shape))
    )
    return explained, forwards


def together(methods: list[BoundMethod], explained: Explained) -> list[Attribution]:
    return explain_together(methods, explained, random_images(), Targets.of(LABELS), KEYS)


@pytest.mark.parametrize(
    ("first", "second", "shared", "apart"),
    [
        (method("cam"), method("saliency"), 3, 6),
        (method("saliency"), method("saliency", channels="signed_sum"), 3, 6),
        (method("cam"), method("grad_cam"), 3, 6),
        (method("cam", ("multiscale", FOUR)), method("saliency", ("multiscale", THREE)), 24, 42),
        (
            method("cam", ("random_crop", {"count": 4, "size": 20})),
            method("saliency", ("random_crop", {"count": 6, "size": 20, "weight": "none"})),
            18,
            30,
        ),
        (
            method("saliency", ("smoothgrad", {"count": 3})),
            method("cam", ("smoothgrad", {"count": 2, "mean_of": "squared"})),
            9,
            15,
        ),
        (
            method("cam", ("multiscale", THREE), ("random_crop", {"count": 2, "size": 20})),
            method("saliency", ("multiscale", THREE), ("random_crop", {"count": 2, "size": 20})),
            36,
            72,
        ),
        (method("saliency", ("multiscale", {"flip": False})), method("cam", ("multiscale", {})), 36, 36),
        (method("cam", ("binary_mask", {"count": 2})), method("cam"), 9, 9),
    ],
    ids=["plain", "channels", "layer", "scales", "crops", "noise", "nested", "other views", "masks"],
)
def test_equal_views_share_one_forward(
    first: BoundMethod, second: BoundMethod, shared: int, apart: int
) -> None:
    explained, forwards = model()
    both = together([first, second], explained)
    assert sum(shape[0] for shape in forwards) == shared
    forwards.clear()
    alone = [together([bound], explained)[0] for bound in (first, second)]
    assert sum(shape[0] for shape in forwards) == apart
    for attribution, wanted in zip(both, alone, strict=True):
        largest = float(wanted.values.abs().amax())
        assert largest > 0
        torch.testing.assert_close(attribution.values, wanted.values, rtol=1e-5, atol=1e-6 * largest)
        torch.testing.assert_close(attribution.logits, wanted.logits, rtol=1e-5, atol=1e-6)
        assert (attribution.uncovered is None) == (wanted.uncovered is None)


@pytest.mark.parametrize("name", ["cam", "saliency"])
@pytest.mark.parametrize("aggregators", [(), (("multiscale", FOUR),), (("random_crop", {"count": 3}),)])
def test_one_method_alone_has_the_same_bytes(name: str, aggregators: Any) -> None:
    bound, (explained, _) = method(name, *aggregators), model()
    alone = bound.explain(explained, random_images(), Targets.of(LABELS), KEYS)
    (attribution,) = together([bound], explained)
    assert torch.equal(attribution.values, alone.values)
    assert torch.equal(attribution.logits, alone.logits)


def test_nothing_is_kept_between_calls() -> None:
    explained, forwards = model()
    methods = [method("cam"), method("saliency")]
    before = together(methods, explained)
    with torch.no_grad():
        explained.network.head.weight.mul_(2)
    after = together(methods, explained)
    torch.testing.assert_close(after[0].values, 2 * before[0].values)
    assert sum(shape[0] for shape in forwards) == 6


def test_a_forward_has_no_more_pixels_than_a_batch_of_the_images() -> None:
    explained, forwards = model(batch=6)
    together([method("cam", ("multiscale", FOUR))], explained)
    images = random_images()
    area = 6 * images.shape[2] * images.shape[3]
    assert all(count * height * width <= area for count, _, height, width in forwards)
    sizes = {(height, width): count for count, _, height, width in reversed(forwards)}
    assert sizes[2 * images.shape[2], 2 * images.shape[3]] == 1, "four times the area: a sixth of the batch"
    assert sizes[tuple(images.shape[2:])] == 6
