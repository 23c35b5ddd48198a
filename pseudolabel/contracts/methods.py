"""What every map method keeps, alone and in every aggregator.

Run by `pytest --pyargs pseudolabel.contracts.methods`. A component from another package is tested as soon as
its entry point is installed. Traits looked at: a method's `place` and `reduce`; `small`, parameters that make
it quick; `positive`, params -> whether its maps are never below 0; `rectified`, its layer must give
>= 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pseudolabel import registry
from pseudolabel.contracts.inputs import beyond_bounds, variants
from pseudolabel.contracts.networks import CLASSES, Small, functions, random_images, state_of
from pseudolabel.contracts.oracles import oracle_of
from pseudolabel.explain.method import BoundMethod, build
from pseudolabel.explain.model import Explained
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import RAW, SAME, UNIT, Component, Parameters

METHODS = registry.names("methods")
AGGREGATORS = registry.names("aggregators")
LINES = [(method, *rest) for method in METHODS for rest in ((), *((name,) for name in AGGREGATORS))]
LABELS = [(1, 3), (2,), (1, 2, 4)]
RECTIFIED = ("trunk.2", "trunk.5", "trunk")
LAYERS = (*RECTIFIED, "trunk.0", "trunk.1", "trunk.3", "trunk.6")  # norms folded, and no norm
KEYS = [(0, "a"), (0, "b"), (0, "c")]


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Component:
    return registry.get("methods", request.param)


@pytest.fixture(params=LINES, ids="+".join)
def line(request: pytest.FixtureRequest) -> BoundMethod:
    return built(*request.param)


def built(method: str, *aggregators: str) -> BoundMethod:
    """A method within aggregators at quick parameters."""
    component = registry.get("methods", method)
    around: list[tuple[Component, Parameters]] = []
    for name in aggregators:
        aggregator = registry.get("aggregators", name)
        small = aggregator.params.model_validate(aggregator.traits.get("small", {}))
        around.append((aggregator, small))
    return build((component, component.params.model_validate(component.traits.get("small", {}))), around)


def explained(line: BoundMethod, batch: int = 4, order: Sequence[int] = (0, 1, 2)) -> list[Tensor]:
    """Finished maps (K, h', w') of each image, images taken in this order, given back as 0, 1, 2."""
    model = Explained(Small(), batch=batch)
    labels = [LABELS[index] for index in order]
    images = random_images()[list(order)]
    attribution = line.explain(model, images, Targets.of(labels), [KEYS[index] for index in order])
    maps = by_image(line.reduce(attribution.values), labels)
    return [maps[list(order).index(index)] for index in range(len(order))]


def choices(component: Component) -> Iterator[Parameters]:
    """Parameters that show every option, and every kind of layer where a method may be told one."""
    yield from variants(component)
    if "layer" in component.params.model_fields:
        for name in RECTIFIED if component.traits.get("rectified") else LAYERS:
            yield component.params.model_validate({"layer": name})


def by_image(maps: Tensor, labels: Sequence[Sequence[int]]) -> list[Tensor]:
    """(T, h', w') as (K, h', w') of each image."""
    ends = np.cumsum([len(row) for row in labels]).tolist()
    return [maps[end - len(row) : end] for end, row in zip(ends, labels, strict=True)]


def test_equals_its_oracle(method: Component) -> None:
    oracle, images = oracle_of(method), random_images()
    network = functions(Small())
    for params in choices(method):
        line = build((method, params))
        attribution = line.explain(Explained(Small()), images, Targets.of(LABELS), KEYS)
        maps = iter(line.reduce(attribution.values))
        logits = iter(attribution.logits)
        named = getattr(params, "layer", None) is not None
        telling = 0
        for image, labels in zip(images.double().numpy(), LABELS, strict=True):
            for label in labels:
                expected = oracle(network, image, label, **params.as_dict())
                actual = next(maps).numpy()
                telling += np.unique(expected.round(9)).size > 20
                # float32 through four layers, relative to the map's largest value
                np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-6 * np.abs(expected).max())
                assert float(next(logits)) == pytest.approx(network.logit(image, label), rel=1e-4, abs=1e-5)
        assert telling >= (1 if named else 4), "the scene must show something for most targets"


def test_shapes_types_and_only_what_was_asked(line: BoundMethod) -> None:
    model, images, targets = Explained(Small()), random_images(), Targets.of(LABELS)
    attribution = line.explain(model, images, targets, KEYS)
    assert attribution.values.shape[0] == attribution.logits.shape[0] == len(targets.images) == 6
    assert attribution.values.dtype == attribution.logits.dtype == torch.float32
    assert attribution.values.isfinite().all()
    assert not attribution.values.requires_grad
    maps = line.reduce(attribution.values)
    assert maps.shape == (6, *attribution.values.shape[2:])
    assert line.project in ("adjoint", "paste")
    if line.project == "adjoint":
        assert maps.shape[1:] == images.shape[2:]
    assert all(float(row.abs().amax()) > 0 for row in maps)


def test_maps_are_never_below_0_where_declared(method: Component) -> None:
    positive = method.traits.get("positive")
    if positive is None:
        pytest.skip("declares nothing")
    below = 0
    for params in choices(method):
        line = build((method, params))
        attribution = line.explain(Explained(Small()), random_images(), Targets.of(LABELS), KEYS)
        lowest = float(line.reduce(attribution.values).min())
        assert lowest >= 0 or not positive(params), params
        below += float(attribution.values.min()) < 0
    assert below or method.traits.get("rectified"), "no attribution is below 0, so that nothing was tried"


def test_batch_size_changes_only_rounding(line: BoundMethod) -> None:
    for batch in (1, 2, 7):
        for actual, wanted in zip(explained(line, batch), explained(line, 64), strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().amax()))


def test_order_of_the_list_changes_only_rounding(line: BoundMethod) -> None:
    for actual, wanted in zip(explained(line, order=(2, 0, 1)), explained(line), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().amax()))


def test_twice_gives_the_same_bits(line: BoundMethod) -> None:
    for actual, wanted in zip(explained(line), explained(line), strict=True):
        assert torch.equal(actual, wanted)


def test_a_label_does_not_see_the_others(line: BoundMethod) -> None:
    model, images = Explained(Small()), random_images(1)
    together = line.reduce(line.explain(model, images, Targets.of([(1, 2, 4)]), KEYS[:1]).values)
    for place, label in enumerate((1, 2, 4)):
        alone = line.reduce(line.explain(model, images, Targets.of([(label,)]), KEYS[:1]).values)
        scale = float(alone.abs().amax())
        torch.testing.assert_close(together[place : place + 1], alone, rtol=1e-4, atol=1e-5 * scale)


def test_an_image_without_a_label_is_left_out(line: BoundMethod) -> None:
    model, images = Explained(Small()), random_images()
    with_gap = line.explain(model, images, Targets((0, 2), (1, 4)), KEYS)
    without = line.explain(model, images[[0, 2]], Targets((0, 1), (1, 4)), [KEYS[0], KEYS[2]])
    torch.testing.assert_close(with_gap.values, without.values, rtol=1e-4, atol=1e-5)


def test_images_are_left_as_they_were(line: BoundMethod) -> None:
    images = random_images()
    line.explain(Explained(Small()), images, Targets.of(LABELS), KEYS)
    assert torch.equal(images, random_images())
    assert not images.requires_grad


@pytest.mark.parametrize("end", ["normal", "bad target", "module raises"])
def test_the_network_is_left_as_it_was(line: BoundMethod, end: str) -> None:
    network = Small().train()
    before = dict(state_of(network))
    targets = Targets.of(LABELS)
    if end == "normal":
        line.explain(Explained(network), random_images(), targets, KEYS)
    elif end == "bad target":
        for label in (0, CLASSES + 1):
            with pytest.raises(ValueError, match=f"class {label} is not in 1..{CLASSES}"):
                line.explain(Explained(network), random_images(), Targets((0,), (label,)), KEYS)
    else:
        model = Explained(network)
        model.network.trunk[4].register_forward_pre_hook(_raise)
        with pytest.raises(ArithmeticError, match="planted"):
            line.explain(model, random_images(), targets, KEYS)
    after = dict(state_of(network))
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]  # type: ignore[arg-type]
        assert same, name


def _raise(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    raise ArithmeticError("planted")


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (5, 64)])
def test_images_of_odd_sizes_have_maps(line: BoundMethod, size: tuple[int, int]) -> None:
    images = random_images(1, *size)
    attribution = line.explain(Explained(Small()), images, Targets.of([(1, 2)]), KEYS[:1])
    assert attribution.values.isfinite().all()
    if line.project == "adjoint":
        assert tuple(attribution.values.shape[2:]) == size


def test_memory_that_runs_out_halves_the_batch(line: BoundMethod) -> None:
    wanted = explained(line, 64)
    model = Explained(Small(), batch=8)

    def full(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError("planted")

    model.network.trunk[0].register_forward_pre_hook(full)
    attribution: Attribution = line.explain(model, random_images(), Targets.of(LABELS), KEYS)
    assert (model.batch, model.asked) == (1, 8)
    for actual, expected in zip(by_image(line.reduce(attribution.values), LABELS), wanted, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().amax()))


@pytest.mark.parametrize("kind", ["methods", "aggregators"])
def test_bounds_refuse_the_value_beyond(kind: str) -> None:
    for name in registry.names(kind):
        component = registry.get(kind, name)
        for key, value in beyond_bounds(component):
            with pytest.raises(ValueError, match=key):
                component.params.model_validate({key: value})


@pytest.mark.parametrize("kind", ["methods", "aggregators"])
def test_declares_its_range_and_says_its_source(kind: str) -> None:
    for name in registry.names(kind):
        component = registry.get(kind, name)
        assert component.gives in (RAW, UNIT, SAME)
        assert all(field.description for field in component.params.model_fields.values())
        assert "Source:" in registry.documentation(kind, name)


def test_gpu_gives_what_the_cpu_gives(line: BoundMethod) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        near = line.explain(Explained(Small()), random_images(), Targets.of(LABELS), KEYS)
        far = line.explain(Explained(Small(), device="cuda"), random_images(), Targets.of(LABELS), KEYS)
    scale = float(near.values.abs().amax())
    torch.testing.assert_close(far.values.cpu(), near.values, rtol=1e-3, atol=1e-4 * scale)
