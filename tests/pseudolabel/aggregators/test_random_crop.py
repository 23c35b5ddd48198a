"""Random crops against their oracle, and what they must never depend on."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pseudolabel import draws, registry
from pseudolabel.aggregators import random_crop as module
from pseudolabel.aggregators.random_crop import RandomCrop, Window
from pseudolabel.contracts.networks import Small, functions, random_images
from pseudolabel.explain.method import BoundMethod, build
from pseudolabel.explain.model import Explained
from pseudolabel.explain.views import explain_together
from pseudolabel.records import Attribution, Targets
from tests.oracles import aggregators as oracles

KEYS = [(0, "a"), (0, "b"), (0, "c")]
LABELS = [(1, 3), (2,), (1, 2, 4)]
QUICK = {"count": 5, "size": 20, "chunk": 2}


def line(method: str = "saliency", *params: RandomCrop) -> BoundMethod:
    component = registry.get("methods", method)
    aggregator = registry.get("aggregators", "random_crop")
    return build((component, component.params()), [(aggregator, params_of_one) for params_of_one in params])


def explained(bound: BoundMethod, batch: int = 16, keys: list[tuple[int, str]] = KEYS) -> Attribution:
    return bound.explain(Explained(Small(), batch=batch), random_images(), Targets.of(LABELS), keys)


@pytest.mark.parametrize("method", ["saliency", "cam"])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"weight": "none"},
        {"weight": "softmax"},
        {"accumulate": "abs_per_crop"},
        {"per_visit": True},
        {"chunk": 100},
        {"chunk": 1},
        {"chunk": 5},
        {"size": 6, "antialias": True},
        {"scale": (0.4, 1.0), "ratio": (0.5, 2.0)},
    ],
    ids=str,
)
def test_equals_its_oracle(method: str, changed: dict[str, object]) -> None:
    params = RandomCrop.model_validate({**QUICK, **changed})
    network, component = functions(Small()), registry.get("methods", method)
    attribution = explained(line(method, params))
    own = component.params()
    reduce = component.traits["reduce"]
    actual = iter(zip(attribution.values[:, 0].numpy(), attribution.uncovered, strict=True))
    for image, key, labels in zip(random_images().double().numpy(), KEYS, LABELS, strict=True):
        windows = [(w.top, w.left, w.height, w.width) for w in module.draw(key, (26, 35), params)]
        for label in labels:

            def inner(view: np.ndarray, label: int = label) -> tuple[np.ndarray, float, float]:
                if method == "saliency":
                    values = network.gradient(view, label)
                else:
                    values = np.einsum("d,dhw->hw", network.weight[label - 1], network.features(view))[None]
                total = float(np.log(np.exp(network.logits(view)).sum()))
                return values, network.logit(view, label), total

            def reduced(values: np.ndarray) -> np.ndarray:
                return reduce(torch.from_numpy(values)[None], own)[0].numpy()

            expected, uncovered = oracles.random_crop(
                inner, reduced, component.traits["project"], image, windows, **params.as_dict()
            )
            values, share = next(actual)
            # float32 sums of a few crops
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=3e-5 * np.abs(expected).max())
            assert float(share) == pytest.approx(uncovered, abs=1e-6)


def test_one_whole_crop_is_plain_saliency_times_its_weight() -> None:
    images, targets = random_images(2, 24, 24), Targets.of([(1, 3), (2,)])
    full_crop = RandomCrop(count=1, scale=(1.0, 1.0), ratio=(1.0, 1.0), size=24)
    model = Explained(Small())
    plain, bound = line(), line("saliency", full_crop)
    single = plain.explain(model, images, targets, KEYS[:2])
    wanted = plain.reduce(single.values) * single.logits.sigmoid()[:, None, None]
    actual = bound.explain(model, images, targets, KEYS[:2])
    torch.testing.assert_close(bound.reduce(actual.values), wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(actual.logits, single.logits)
    assert actual.uncovered.tolist() == [0, 0, 0]


def test_the_batch_of_memory_changes_only_rounding() -> None:
    params = RandomCrop.model_validate({**QUICK, "count": 7, "chunk": 3})
    wanted = explained(line("saliency", params), batch=64).values
    scale = float(wanted.abs().amax())
    for batch in (1, 2, 7):
        actual = explained(line("saliency", params), batch=batch).values
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5 * scale)


def test_the_chunk_is_no_batch_and_changes_the_result() -> None:
    maps = {}
    for chunk in (1, 2, 5):
        params = RandomCrop.model_validate({**QUICK, "scale": (0.5, 1.0), "chunk": chunk})
        maps[chunk] = explained(line("saliency", params)).values
    each = explained(
        line("saliency", RandomCrop(count=5, size=20, scale=(0.5, 1.0), accumulate="abs_per_crop"))
    ).values
    torch.testing.assert_close(maps[1], each, rtol=1e-5, atol=1e-7)
    assert (maps[5] <= maps[1] + 1e-6).all(), "signs cancel inside a chunk only"
    for values, other in pairwise(maps.values()):
        assert float((values - other).abs().amax()) > 0.01 * float(values.abs().amax())


def test_forwards_are_full_and_shared_by_images() -> None:
    model = Explained(Small(), batch=4)
    model.probe()
    sizes: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    line("saliency", RandomCrop(count=5, size=16)).explain(model, random_images(), Targets.of(LABELS), KEYS)
    assert sizes == [4, 4, 4, 3]


def test_a_backward_for_each_slot_of_a_batch_of_crops() -> None:
    model = Explained(Small(), batch=5)
    model.probe()
    backwards: list[int] = []
    model.network.trunk[6].register_full_backward_hook(lambda *_: backwards.append(1))
    line("saliency", RandomCrop(count=5, size=16)).explain(model, random_images(), Targets.of(LABELS), KEYS)
    assert len(backwards) == 2 + 1 + 3


def test_crops_follow_from_seed_id_and_index_alone() -> None:
    params = RandomCrop(count=30)
    first = module.draw((0, "a"), (200, 300), params)
    torch.manual_seed(99)  # nobody else's draws count
    assert module.draw((0, "a"), (200, 300), params) == first
    assert module.draw((0, "a"), (200, 300), RandomCrop(count=10)) == first[:10]
    assert len(set(first)) == 30
    for other in ((1, "a"), (0, "b")):
        assert not set(module.draw(other, (200, 300), params)) & set(first)


def test_a_seed_moves_the_map() -> None:
    params = RandomCrop.model_validate(QUICK)
    first = explained(line("saliency", params)).values
    other = explained(line("saliency", params), keys=[(1, "a"), (1, "b"), (1, "c")]).values
    assert float((first - other).abs().amax()) > 0.1 * float(first.abs().amax())


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((200, 300), (0.05, 0.3), (0.85, 1.25)),
        ((33, 31), (0.9, 1.0), (0.5, 2.0)),  # some of the ten tries fail
        ((10, 400), (0.5, 1.0), (0.85, 1.25)),  # none fits: too wide
        ((400, 10), (0.5, 1.0), (0.85, 1.25)),  # too tall
        ((1, 1), (0.05, 0.3), (0.85, 1.25)),
        ((1, 5000), (0.05, 0.3), (0.85, 1.25)),
    ],
)
def test_windows_are_those_of_random_resized_crop(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    params = RandomCrop(count=200, scale=scale, ratio=ratio)
    windows = module.draw((0, "x"), size, params)
    for index, window in enumerate(windows):
        source = draws.generator(0, "x", index)

        def uniform(low: float, high: float, source: torch.Generator = source) -> float:
            return low + (high - low) * float(torch.rand((), dtype=torch.float64, generator=source))

        def below(count: int, source: torch.Generator = source) -> int:
            return int(torch.randint(count, (), generator=source))

        expected = oracles.draw(*size, scale, ratio, uniform, below)
        assert (window.top, window.left, window.height, window.width) == expected
        assert 0 <= window.top <= size[0] - window.height
        assert 0 <= window.left <= size[1] - window.width
        assert min(window.height, window.width) >= 1
    if size == (200, 300):  # two-sided: the whole range of areas and aspects is drawn, evenly
        areas = np.array([w.height * w.width for w in windows]) / 60_000
        aspects = np.log([w.width / w.height for w in windows])
        assert areas.min() < 0.07
        assert areas.max() > 0.28
        assert areas.mean() == pytest.approx(0.175, abs=0.02)
        assert aspects.min() < math.log(0.87)
        assert aspects.max() > math.log(1.22)


def test_a_corner_that_no_crop_covered_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_draw", lambda key, size, params: Window(0, 0, 13, 7))
    for per_visit in (False, True):
        params = RandomCrop.model_validate({**QUICK, "per_visit": per_visit})
        attribution = explained(line("saliency", params))
        outside = attribution.values.clone()
        outside[..., :13, :7] = 0
        assert not outside.any()
        assert attribution.values[..., :13, :7].any()
        assert attribution.uncovered.tolist() == pytest.approx([1 - 13 * 7 / (26 * 35)] * 6)


def test_crops_of_crops_run() -> None:
    outer, inner = RandomCrop(count=3, size=18, scale=(0.3, 0.9)), RandomCrop(count=2, size=12)
    bound = line("saliency", inner, outer)
    assert bound.views == 6
    attribution = explained(bound)
    again = explained(bound, batch=5)
    assert attribution.values.shape == (6, 1, 26, 35)
    torch.testing.assert_close(again.values, attribution.values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"scale": (0.3, 0.05)}, r"scale: \[0.3, 0.05\] is not ascending"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"scale": (0.0, 0.5)}, "scale"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"count": 0}, "count"),
        ({"weight": "mean"}, "weight"),
        ({"num": 5}, "num"),
    ],
)
def test_parameters_are_refused(bad: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        RandomCrop.model_validate(bad)


SETS = [
    RandomCrop(count=7, size=20, chunk=3),
    RandomCrop(count=4, size=20, chunk=3),
    RandomCrop(count=7, size=20, chunk=2, weight="none"),
    RandomCrop(count=5, size=20, weight="softmax", per_visit=True),
    RandomCrop(count=6, size=20, accumulate="abs_per_crop"),
]


@pytest.mark.parametrize("method", ["saliency", "cam"])
def test_several_sets_from_one_pass_equal_each_alone(method: str) -> None:
    model = Explained(Small())
    forwards: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda _, inputs, __: forwards.append(len(inputs[0])))
    methods = [line(method, params) for params in SETS]
    everything = explain_together(methods, model, random_images(), Targets.of(LABELS), KEYS)
    probe = 1 if method == "saliency" else 0
    assert sum(forwards) == 3 * 7 + probe, "the largest count runs once"
    for params, actual in zip(SETS, everything, strict=True):
        wanted = explained(line(method, params))
        scale = float(wanted.values.abs().amax())
        torch.testing.assert_close(actual.values, wanted.values, rtol=1e-5, atol=1e-6 * scale)
        for name in ("logits", "totals", "uncovered"):
            torch.testing.assert_close(getattr(actual, name), getattr(wanted, name), rtol=1e-5, atol=1e-6)
    maps = [actual.values for actual in everything]
    assert not torch.allclose(maps[0], maps[1], rtol=1e-2)


@pytest.mark.parametrize(
    "changed", [{"size": 24}, {"scale": (0.1, 0.3)}, {"ratio": (1.0, 1.0)}, {"antialias": True}], ids=str
)
def test_sets_of_other_crops_run_apart(changed: dict[str, object]) -> None:
    sets = [RandomCrop.model_validate(QUICK), RandomCrop.model_validate({**QUICK, **changed})]
    model = Explained(Small())
    forwards: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda _, inputs, __: forwards.append(len(inputs[0])))
    methods = [line("cam", params) for params in sets]
    together = explain_together(methods, model, random_images(), Targets.of(LABELS), KEYS)
    assert sum(forwards) == 2 * 3 * 5
    for params, attribution in zip(sets, together, strict=True):
        assert torch.equal(attribution.values, explained(line("cam", params)).values)


def test_softmax_needs_all_logits() -> None:
    def silent(model: object, images: torch.Tensor, targets: Targets, keys: object) -> Attribution:
        return Attribution(torch.ones(len(targets.images), 1, 4, 4), torch.zeros(len(targets.images)))

    inner = BoundMethod(silent, lambda values: values[:, 0], "paste")
    component = registry.get("aggregators", "random_crop")
    with pytest.raises(ValueError, match="softmax needs a method that tells all logits"):
        explained(component.run(inner, RandomCrop(count=2, weight="softmax")))
    assert explained(component.run(inner, RandomCrop(count=2))).totals is None
