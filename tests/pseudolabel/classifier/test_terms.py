"""Objectives with several forwards, draws and modules of their own: trained, saved, continued."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pseudolabel.classifier.learning import ClassifierTask, Example, learner_of
from pseudolabel.classifier.network import Classifier
from pseudolabel.classifier.terms import Term, Terms
from pseudolabel.errors import UsageError
from pseudolabel.recipes.schema import TrainRecipe
from pseudolabel.records import ImageRecord, ObjectiveValue
from pseudolabel.registry import Component, ObjectiveParameters, get, parameter
from pseudolabel.training.device import launch
from pseudolabel.training.engine import Learner
from tests.pseudolabel.classifier.test_learning import MEAN, RECIPE, STD


class Twice(ObjectiveParameters):
    """A second look at each image, mirrored and with noise, by a head of its own."""

    lr_factor: float = parameter(3.0, gt=0, help="its head learns this many times faster")


def twice(
    network: Any,
    images: Tensor,
    targets: Tensor,
    draws: Callable[[int], torch.Generator],
    params: Twice,
    *,
    own: nn.Module,
    classify: Callable[[Tensor, Tensor], Tensor],
) -> ObjectiveValue:
    noise = torch.stack([torch.randn(image.shape, generator=draws(row)) for row, image in enumerate(images)])
    first = classify(network(images), targets)
    second = classify(own(network.features(images.flip(3) + 0.1 * noise).mean(dim=(2, 3))), targets)
    return ObjectiveValue(first + second, {"second": float(second.detach())})


COMPONENT = Component(
    "objectives", "twice", twice, Twice,
    traits={
        "adds_up": True, "wraps": True, "figures": ("second",),
        "modules": lambda network, classes, params: nn.Linear(network.depth, classes),
    },
)  # fmt: skip


def two_objectives() -> tuple[ClassifierTask, Learner, list[Example]]:
    """Two objectives on a small classifier, and four images."""
    recipe = TrainRecipe.model_validate_json(json.dumps(RECIPE))
    torch.manual_seed(0)
    network = Classifier("test_resnet", 3, output_stride=16)
    torch.manual_seed(1)
    own = COMPONENT.traits["modules"](network, 3, Twice())
    bce = get("objectives", "bce")
    terms = Terms((Term(bce, bce.params(weight=0.0), None), Term(COMPONENT, Twice(weight=0.5), own)))
    learner = learner_of(launch("cpu", "float32"), network, terms, recipe)
    records = [ImageRecord(str(i), Path(), (1 + i % 3,)) for i in range(4)]
    source = np.random.default_rng(0)
    examples = [Example(record, source.integers(0, 256, (32, 32, 3), np.uint8), 0) for record in records]
    task = ClassifierTask(records, recipe, MEAN, STD, network, terms, torch.device("cpu"))
    task.ready()
    return task, learner, examples


def test_own_module_learns_faster_and_its_figures_are_means() -> None:
    task, learner, examples = two_objectives()
    own = task.terms.modules["objective.twice"]
    before = own.weight.detach().clone()  # type: ignore[union-attr, operator]
    result = learner.step(task.work(None), examples, number=0, total=8)
    assert task.terms.figures == ("twice.second",)
    assert result.figures["twice.second"] == pytest.approx(
        functional.softplus(torch.zeros(1)).item(), rel=0.3
    )
    assert not torch.equal(own.weight, before)
    rates = [group["lr"] for group in learner.optimizer.param_groups]
    assert rates == pytest.approx([0.02, 0.2, 0.06])


def test_accumulation_and_order_change_nothing_but_rounding() -> None:
    losses = []
    for parts, order in ((1, [0, 1, 2, 3]), (2, [0, 1, 2, 3]), (1, [3, 1, 0, 2])):
        task, learner, examples = two_objectives()
        learner.plan = replace(learner.plan, accumulate=parts)
        result = learner.step(task.work(None), [examples[row] for row in order], number=0, total=8)
        losses.append([result.loss, result.norm, result.figures["twice.second"]])
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-5)  # float32 sums in another order


def test_own_module_is_part_of_the_state(tmp_path: Path) -> None:
    from pseudolabel.training.position import Position

    states = []
    for cut in (False, True):
        task, learner, examples = two_objectives()
        learner.step(task.work(None), examples, number=0, total=8)
        if cut:
            learner.save(tmp_path, Position(step=1), {"fingerprint": "x"})
            task, learner, examples = two_objectives()
            position = learner.load(tmp_path, lambda *_: None, print)
            assert position == Position(step=1)
        learner.step(task.work(None), examples, number=1, total=8)
        states.append({name: module.state_dict() for name, module in learner.modules.items()})
    assert states[0].keys() == {"network", "objective.twice"}
    for name, tensors in states[0].items():
        for key, value in tensors.items():
            assert torch.equal(value, states[1][name][key]), (name, key)


def test_an_objective_wraps_the_first_classification_loss_of_the_list() -> None:
    task, _, _ = two_objectives()
    logits, targets = torch.tensor([[1.0, -2.0]]), torch.tensor([[1.0, 1.0]])
    wrapped = task.terms._classification()(logits, targets)
    assert wrapped.item() == pytest.approx(functional.softplus(-targets * logits).mean().item())
    focal = get("objectives", "focal")
    terms = Terms((task.terms.terms[1], Term(focal, focal.params(), None)))
    assert terms._classification()(logits, targets).item() < wrapped.item()
    assert Terms(task.terms.terms[1:])._classification()(logits, targets).item() == wrapped.item()


def test_one_that_does_not_add_up_is_refused_on_several_ranks() -> None:
    component = replace(COMPONENT, traits={**COMPONENT.traits, "adds_up": False})
    terms = Terms((Term(component, Twice(), None),))
    terms.check_ranks(1)
    with pytest.raises(UsageError, match=r"the loss of 'twice' is not a mean over images.* one device"):
        terms.check_ranks(2)
