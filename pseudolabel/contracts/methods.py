"""What every map method keeps, alone and in every aggregator.

Run by `pytest --pyargs pseudolabel.contracts.methods`. A brick from another package is tested as soon as its
entry point is installed. Traits looked at: a method's `place` and `finish`; `small`, parameters that make
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
from pseudolabel.contracts.networks import CLASSES, Small, functions, pictures, state_of
from pseudolabel.contracts.twins import twin_of
from pseudolabel.maps._bound import BoundMethod, build
from pseudolabel.maps._explained import Explained
from pseudolabel.records import Evidence, Targets
from pseudolabel.registry import RAW, SAME, UNIT, Brick, Parameters

METHODS = registry.names("methods")
AGGREGATORS = registry.names("aggregators")
LINES = [(method, *rest) for method in METHODS for rest in ((), *((name,) for name in AGGREGATORS))]
LABELS = [(1, 3), (2,), (1, 2, 4)]
RECTIFIED = ("trunk.2", "trunk.5", "trunk")
LAYERS = (*RECTIFIED, "trunk.0", "trunk.1", "trunk.3", "trunk.6")  # norms folded, and no norm
KEYS = [(0, "a"), (0, "b"), (0, "c")]


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Brick:
    return registry.get("methods", request.param)


@pytest.fixture(params=LINES, ids="+".join)
def line(request: pytest.FixtureRequest) -> BoundMethod:
    return built(*request.param)


def built(method: str, *aggregators: str) -> BoundMethod:
    """A method within aggregators at quick parameters."""
    brick = registry.get("methods", method)
    around: list[tuple[Brick, Parameters]] = []
    for name in aggregators:
        aggregator = registry.get("aggregators", name)
        small = aggregator.params.model_validate(aggregator.traits.get("small", {}))
        around.append((aggregator, small))
    return build((brick, brick.params.model_validate(brick.traits.get("small", {}))), around)


def explained(line: BoundMethod, batch: int = 4, order: Sequence[int] = (0, 1, 2)) -> list[Tensor]:
    """Finished maps (K, h', w') of each image, images taken in this order, given back as 0, 1, 2."""
    model = Explained(Small(), batch=batch)
    labels = [LABELS[index] for index in order]
    images = pictures()[list(order)]
    evidence = line.explain(model, images, Targets.of(labels), [KEYS[index] for index in order])
    maps = by_image(line.finish(evidence.values), labels)
    return [maps[list(order).index(index)] for index in range(len(order))]


def choices(brick: Brick) -> Iterator[Parameters]:
    """Parameters that show every option, and every kind of layer where a method may be told one."""
    yield from variants(brick)
    if "layer" in brick.params.model_fields:
        for name in RECTIFIED if brick.traits.get("rectified") else LAYERS:
            yield brick.params.model_validate({"layer": name})


def by_image(maps: Tensor, labels: Sequence[Sequence[int]]) -> list[Tensor]:
    """(T, h', w') as (K, h', w') of each image."""
    ends = np.cumsum([len(row) for row in labels]).tolist()
    return [maps[end - len(row) : end] for end, row in zip(ends, labels, strict=True)]


def test_equals_its_twin(method: Brick) -> None:
    twin, images = twin_of(method), pictures()
    network = functions(Small())
    for params in choices(method):
        line = build((method, params))
        evidence = line.explain(Explained(Small()), images, Targets.of(LABELS), KEYS)
        maps = iter(line.finish(evidence.values))
        logits = iter(evidence.logits)
        named = getattr(params, "layer", None) is not None
        telling = 0
        for image, labels in zip(images.double().numpy(), LABELS, strict=True):
            for label in labels:
                expected = twin(network, image, label, **params.as_dict())
                found = next(maps).numpy()
                telling += np.unique(expected.round(9)).size > 20
                # float32 through four layers, relative to the map's largest value
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6 * np.abs(expected).max())
                assert float(next(logits)) == pytest.approx(network.logit(image, label), rel=1e-4, abs=1e-5)
        assert telling >= (1 if named else 4), "the scene must show something for most targets"


def test_shapes_types_and_only_what_was_asked(line: BoundMethod) -> None:
    model, images, targets = Explained(Small()), pictures(), Targets.of(LABELS)
    evidence = line.explain(model, images, targets, KEYS)
    assert evidence.values.shape[0] == evidence.logits.shape[0] == len(targets.images) == 6
    assert evidence.values.dtype == evidence.logits.dtype == torch.float32
    assert evidence.values.isfinite().all()
    assert not evidence.values.requires_grad
    maps = line.finish(evidence.values)
    assert maps.shape == (6, *evidence.values.shape[2:])
    assert line.place in ("adjoint", "paste")
    if line.place == "adjoint":
        assert maps.shape[1:] == images.shape[2:]
    assert all(float(row.abs().amax()) > 0 for row in maps)


def test_maps_are_never_below_0_where_declared(method: Brick) -> None:
    positive = method.traits.get("positive")
    if positive is None:
        pytest.skip("declares nothing")
    below = 0
    for params in choices(method):
        line = build((method, params))
        evidence = line.explain(Explained(Small()), pictures(), Targets.of(LABELS), KEYS)
        lowest = float(line.finish(evidence.values).min())
        assert lowest >= 0 or not positive(params), params
        below += float(evidence.values.min()) < 0
    assert below or method.traits.get("rectified"), "no evidence is below 0, so that nothing was tried"


def test_batch_size_changes_only_rounding(line: BoundMethod) -> None:
    for batch in (1, 2, 7):
        for found, wanted in zip(explained(line, batch), explained(line, 64), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().amax()))


def test_order_of_the_list_changes_only_rounding(line: BoundMethod) -> None:
    for found, wanted in zip(explained(line, order=(2, 0, 1)), explained(line), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().amax()))


def test_twice_gives_the_same_bits(line: BoundMethod) -> None:
    for found, wanted in zip(explained(line), explained(line), strict=True):
        assert torch.equal(found, wanted)


def test_a_label_does_not_see_the_others(line: BoundMethod) -> None:
    model, images = Explained(Small()), pictures(1)
    together = line.finish(line.explain(model, images, Targets.of([(1, 2, 4)]), KEYS[:1]).values)
    for place, label in enumerate((1, 2, 4)):
        alone = line.finish(line.explain(model, images, Targets.of([(label,)]), KEYS[:1]).values)
        scale = float(alone.abs().amax())
        torch.testing.assert_close(together[place : place + 1], alone, rtol=1e-4, atol=1e-5 * scale)


def test_an_image_without_a_label_is_left_out(line: BoundMethod) -> None:
    model, images = Explained(Small()), pictures()
    with_gap = line.explain(model, images, Targets((0, 2), (1, 4)), KEYS)
    without = line.explain(model, images[[0, 2]], Targets((0, 1), (1, 4)), [KEYS[0], KEYS[2]])
    torch.testing.assert_close(with_gap.values, without.values, rtol=1e-4, atol=1e-5)


def test_images_are_left_as_they_were(line: BoundMethod) -> None:
    images = pictures()
    line.explain(Explained(Small()), images, Targets.of(LABELS), KEYS)
    assert torch.equal(images, pictures())
    assert not images.requires_grad


@pytest.mark.parametrize("end", ["normal", "bad target", "module raises"])
def test_the_network_is_left_as_it_was(line: BoundMethod, end: str) -> None:
    network = Small().train()
    before = dict(state_of(network))
    targets = Targets.of(LABELS)
    if end == "normal":
        line.explain(Explained(network), pictures(), targets, KEYS)
    elif end == "bad target":
        for label in (0, CLASSES + 1):
            with pytest.raises(ValueError, match=f"class {label} is not in 1..{CLASSES}"):
                line.explain(Explained(network), pictures(), Targets((0,), (label,)), KEYS)
    else:
        model = Explained(network)
        model.network.trunk[4].register_forward_pre_hook(_raise)
        with pytest.raises(ArithmeticError, match="planted"):
            line.explain(model, pictures(), targets, KEYS)
    after = dict(state_of(network))
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]  # type: ignore[arg-type]
        assert same, name


def _raise(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    raise ArithmeticError("planted")


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (5, 64)])
def test_odd_sizes_f7(line: BoundMethod, size: tuple[int, int]) -> None:
    images = pictures(1, *size)
    evidence = line.explain(Explained(Small()), images, Targets.of([(1, 2)]), KEYS[:1])
    assert evidence.values.isfinite().all()
    if line.place == "adjoint":
        assert tuple(evidence.values.shape[2:]) == size


def test_memory_that_runs_out_halves_the_batch_f14(line: BoundMethod) -> None:
    wanted = explained(line, 64)
    model = Explained(Small(), batch=8)

    def full(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError("planted")

    model.network.trunk[0].register_forward_pre_hook(full)
    evidence: Evidence = line.explain(model, pictures(), Targets.of(LABELS), KEYS)
    assert (model.batch, model.asked) == (1, 8)
    for found, expected in zip(by_image(line.finish(evidence.values), LABELS), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().amax()))


@pytest.mark.parametrize("room", ["methods", "aggregators"])
def test_bounds_refuse_the_value_beyond(room: str) -> None:
    for name in registry.names(room):
        brick = registry.get(room, name)
        for key, value in beyond_bounds(brick):
            with pytest.raises(ValueError, match=key):
                brick.params.model_validate({key: value})


@pytest.mark.parametrize("room", ["methods", "aggregators"])
def test_declares_its_range_and_says_its_source(room: str) -> None:
    for name in registry.names(room):
        brick = registry.get(room, name)
        assert brick.gives in (RAW, UNIT, SAME)
        assert all(field.description for field in brick.params.model_fields.values())
        assert "Source:" in registry.documentation(room, name)


def test_gpu_gives_what_the_cpu_gives(line: BoundMethod) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        near = line.explain(Explained(Small()), pictures(), Targets.of(LABELS), KEYS)
        far = line.explain(Explained(Small(), device="cuda"), pictures(), Targets.of(LABELS), KEYS)
    scale = float(near.values.abs().amax())
    torch.testing.assert_close(far.values.cpu(), near.values, rtol=1e-3, atol=1e-4 * scale)
