"""What passes through aggregators around one another: the batch, the share left uncovered, the views."""

from __future__ import annotations

import pytest
import torch

from pseudolabel import registry
from pseudolabel.aggregators import random_crop as crops
from pseudolabel.aggregators.random_crop import RandomCrop
from pseudolabel.contracts.networks import Small, random_images
from pseudolabel.explain.method import BoundMethod, build
from pseudolabel.explain.model import Explained
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import Component, Parameters

KEYS = [(0, "a"), (0, "b"), (0, "c")]
LABELS = [(1, 3), (2,), (1, 2, 4)]
OUTER = [
    ("binary_mask", {"count": 4}),
    ("multiscale", {"scales": (1.0, 0.5)}),
    ("random_crop", {"count": 4, "size": 20}),
    ("smoothgrad", {"count": 4}),
]


def step(name: str, params: dict[str, object]) -> tuple[Component, Parameters]:
    component = registry.get("aggregators", name)
    return component, component.params.model_validate(params)


@pytest.mark.parametrize(("name", "params"), OUTER, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize(("batch", "most"), [(1, 1), (8, 2), (9, 3), (100, 12)])
def test_an_inner_method_is_handed_what_fills_a_forward(
    name: str, params: dict[str, object], batch: int, most: int
) -> None:
    handed: list[int] = []

    def costly(model: object, images: torch.Tensor, targets: Targets, keys: object) -> Attribution:
        handed.append(len(images))
        return Attribution(torch.ones(len(targets.images), 1, 4, 4), torch.zeros(len(targets.images)))

    inner = BoundMethod(costly, lambda values: values[:, 0], "paste", views=3)
    component, own = step(name, params)
    bound = component.run(inner, own)
    assert bound.views == 12
    bound.explain(Explained(Small(), batch=batch), random_images(), Targets.of(LABELS), KEYS)
    assert sum(handed) == 12
    full = 6 if name == "multiscale" and most == 12 else most  # a forward holds copies of one size
    assert max(handed) == min(full, max(1, batch // 3))


@pytest.mark.parametrize(("name", "params"), [pair for pair in OUTER if pair[0] != "random_crop"])
def test_the_uncovered_share_is_the_mean_over_views(name: str, params: dict[str, object]) -> None:
    inside = RandomCrop(count=3, size=16)
    component = registry.get("methods", "cam")
    bound = build(
        (component, component.params()), [step("random_crop", inside.as_dict()), step(name, params)]
    )
    attribution = bound.explain(Explained(Small(), batch=5), random_images(), Targets.of(LABELS), KEYS)
    expected = []
    for key, labels in zip(KEYS, LABELS, strict=True):
        shares = []
        for index in range(4):
            size = (13, 18) if name == "multiscale" and index >= 2 else (26, 35)
            covered = torch.zeros(size)
            for window in crops.draw((*key, index), size, inside):
                window.of(covered).fill_(1)
            shares.append(1 - float(covered.mean()))
        expected += [sum(shares) / 4] * len(labels)
    assert attribution.uncovered is not None
    assert attribution.uncovered.tolist() == pytest.approx(expected, abs=1e-6)
    assert 0.1 < expected[0] < 0.9


def test_another_reduce_reaches_the_innermost_attribution() -> None:
    component = registry.get("methods", "saliency")
    around = [step(name, params) for name, params in OUTER if name != "binary_mask"]
    bound = build((component, component.params()), around)
    assert bound.with_reduce(torch.Tensor.sum).innermost is torch.Tensor.sum
    assert bound.innermost is not torch.Tensor.sum, "the method itself stays as it was"
    doubled = bound.with_reduce(lambda values: 2 * bound.innermost(values))
    actual, wanted = (
        bound_method.reduce(
            bound_method.explain(Explained(Small()), random_images(), Targets.of(LABELS), KEYS).values
        )
        for bound_method in (doubled, bound)
    )
    torch.testing.assert_close(actual, 2 * wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fits", [1, 0])
def test_memory_that_runs_out_while_views_are_made(fits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from pseudolabel.errors import MachineError
    from pseudolabel.explain import views

    component = registry.get("methods", "saliency")
    line = build((component, component.params()), [step("random_crop", {"count": 8, "size": 20})])
    wanted = line.explain(Explained(Small()), random_images(1), Targets.of([(1,)]), [(0, "a")])
    stack = torch.stack

    def scarce(parts: list[torch.Tensor], *rest: int) -> torch.Tensor:
        if len(parts) > fits:
            raise torch.OutOfMemoryError("planted")
        return stack(parts, *rest)

    monkeypatch.setattr(views.torch, "stack", scarce)
    model = Explained(Small(), batch=8)
    if not fits:
        with pytest.raises(MachineError, match="memory of cpu runs out for one view of an image; take"):
            line.explain(model, random_images(1), Targets.of([(1,)]), [(0, "a")])
        return
    actual = line.explain(model, random_images(1), Targets.of([(1,)]), [(0, "a")])
    assert (model.batch, model.asked) == (1, 8)
    torch.testing.assert_close(actual.values, wanted.values, rtol=1e-4, atol=1e-6)
