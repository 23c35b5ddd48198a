"""What every aggregator keeps: its oracle, the signs, its draws, and being nested in any order.

Run by `pytest --pyargs pseudolabel.contracts.aggregators`; `pseudolabel.contracts.methods` runs every method
in every aggregator. Traits looked at: an aggregator's `small` (parameters that make it quick) and `drawn`
((key, size, params) -> what is random, as its oracle takes it); one without `drawn` draws nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pseudolabel import registry
from pseudolabel.contracts.inputs import variants
from pseudolabel.contracts.methods import (
    AGGREGATORS,
    KEYS,
    LABELS,
    METHODS,
    built,
    test_a_label_does_not_see_the_others,
    test_an_image_without_a_label_is_left_out,
    test_batch_size_changes_only_rounding,
    test_images_are_left_as_they_were,
    test_images_of_odd_sizes_have_maps,
    test_memory_that_runs_out_halves_the_batch,
    test_order_of_the_list_changes_only_rounding,
    test_shapes_types_and_only_what_was_asked,
    test_twice_gives_the_same_bits,
)
from pseudolabel.contracts.networks import Functions, Small, functions, random_images
from pseudolabel.contracts.oracles import oracle_of
from pseudolabel.explain.method import BoundMethod, build
from pseudolabel.explain.model import Explained
from pseudolabel.records import Targets
from pseudolabel.registry import Component

__all__ = [
    "aggregator",
    "line",
    "test_a_label_does_not_see_the_others",
    "test_an_image_without_a_label_is_left_out",
    "test_batch_size_changes_only_rounding",
    "test_costs_as_many_forwards_as_it_says",
    "test_equals_its_oracle",
    "test_images_are_left_as_they_were",
    "test_images_of_odd_sizes_have_maps",
    "test_maps_are_never_below_0_where_the_method_s_are_not",
    "test_memory_that_runs_out_halves_the_batch",
    "test_order_of_the_list_changes_only_rounding",
    "test_shapes_types_and_only_what_was_asked",
    "test_the_key_decides_all_that_is_random",
    "test_twice_gives_the_same_bits",
]

Array = NDArray[np.float64]
INNER = ("saliency", "cam")  # a gradient and a feature map: what aggregators tell apart
NESTED = [(method, *pair) for method in INNER for pair in itertools.product(AGGREGATORS, repeat=2)]


@pytest.fixture(params=NESTED, ids="+".join)
def line(request: pytest.FixtureRequest) -> BoundMethod:
    return built(*request.param)


@pytest.fixture(params=AGGREGATORS)
def aggregator(request: pytest.FixtureRequest) -> Component:
    return registry.get("aggregators", request.param)


def gradient(network: Functions, view: Array, label: int) -> Array:
    """What saliency finds."""
    return network.gradient(view, label)


def votes(network: Functions, view: Array, label: int) -> Array:
    """What cam finds, (1, h', w')."""
    scores: Array = np.einsum("d,dhw->hw", network.weight[label - 1], network.features(view))[None]
    return scores


ATTRIBUTIONS: dict[str, tuple[Callable[[Functions, Array, int], Array], Callable[[Array], Array]]] = {
    "saliency": (gradient, lambda values: np.abs(values).max(axis=0)),
    "cam": (votes, lambda values: np.maximum(values[0], 0)),
}


@pytest.mark.parametrize("method", INNER)
def test_equals_its_oracle(aggregator: Component, method: str) -> None:
    oracle, images, network = oracle_of(aggregator), random_images(), functions(Small())
    component = registry.get("methods", method)
    attribution_of, reduce = ATTRIBUTIONS[method]
    drawn = aggregator.traits.get("drawn", lambda key, size, params: {})
    for params in variants(aggregator, aggregator.traits.get("small")):
        bound = build((component, component.params()), [(aggregator, params)])
        attribution = bound.explain(Explained(Small()), images, Targets.of(LABELS), KEYS)
        maps = bound.reduce(attribution.values).numpy()
        row = 0
        for image, key, labels in zip(images.double().numpy(), KEYS, LABELS, strict=True):
            for label in labels:
                said: list[tuple[float, float]] = []

                def inner(view: Array, label: int = label, said: list[tuple[float, float]] = said) -> object:
                    logits = network.logits(view)
                    said.append((logits[label - 1], float(np.logaddexp.reduce(logits))))
                    return attribution_of(network, view, label), *said[-1]

                random = drawn(key, (26, 35), params)
                expected, uncovered = oracle(
                    inner, reduce, component.traits["project"], image, **random, **params.as_dict()
                )
                # float32 sums of a few views, relative to the map's largest value
                np.testing.assert_allclose(
                    maps[row], expected, rtol=1e-4, atol=3e-5 * np.abs(expected).max(), err_msg=str(params)
                )
                assert float(attribution.logits[row]) == pytest.approx(
                    np.mean([logit for logit, _ in said]), rel=1e-4, abs=1e-5
                )
                assert attribution.totals is not None
                assert float(attribution.totals[row]) == pytest.approx(
                    np.mean([total for _, total in said]), rel=1e-4, abs=1e-5
                )
                if uncovered is None:
                    assert attribution.uncovered is None
                else:
                    assert attribution.uncovered is not None
                    assert float(attribution.uncovered[row]) == pytest.approx(uncovered, abs=1e-6)
                row += 1


def test_maps_are_never_below_0_where_the_method_s_are_not(aggregator: Component) -> None:
    below = 0
    for name in METHODS:
        method = registry.get("methods", name)
        for chosen in variants(method, method.traits.get("small")):
            if not method.traits.get("positive", lambda params: False)(chosen):
                continue
            small = aggregator.params.model_validate(aggregator.traits.get("small", {}))
            bound = build((method, chosen), [(aggregator, small)])
            attribution = bound.explain(Explained(Small()), random_images(), Targets.of(LABELS), KEYS)
            assert float(bound.reduce(attribution.values).min()) >= 0, (name, chosen)
            below += 1
    assert below, "no method's maps are >= 0"


@pytest.mark.parametrize("method", INNER)
def test_the_key_decides_all_that_is_random(aggregator: Component, method: str) -> None:
    bound, model, images = built(method, aggregator.name), Explained(Small()), random_images(1)
    targets = Targets.of([(1, 3)])

    def maps(*key: int | str) -> torch.Tensor:
        return bound.reduce(bound.explain(model, images, targets, [key]).values)

    first = maps(0, "a")
    torch.manual_seed(99)  # nobody else's draws count
    assert torch.equal(maps(0, "a"), first)
    for other in ((1, "a"), (0, "b")):
        moved = float((maps(*other) - first).abs().amax()) / float(first.abs().amax())
        if "drawn" in aggregator.traits:
            assert moved > 0.01, "another seed or id draws something else"
        else:
            assert moved == 0, "draws something: declare it by the trait `drawn`"


def test_costs_as_many_forwards_as_it_says(line: BoundMethod) -> None:
    model = Explained(Small(), batch=3)
    model.probe()
    items: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda _, inputs, __: items.append(len(inputs[0])))
    line.explain(model, random_images(), Targets.of(LABELS), KEYS)
    assert sum(items) == 3 * line.views
    assert max(items) <= 3
