"""A step of a classifier's training against an oracle that knows the gradient by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pseudolabel.classifier.augmentation import normalised
from pseudolabel.classifier.learning import ClassifierTask, Example, learner_of, targets_of
from pseudolabel.classifier.network import Classifier
from pseudolabel.classifier.terms import Terms
from pseudolabel.recipes.schema import TrainRecipe
from pseudolabel.records import ImageRecord
from pseudolabel.training.device import launch
from pseudolabel.training.plan import Plan
from tests.oracles import classifier as oracles

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
RECIPE = {
    "data": {"reader": "voc", "root": "nowhere"},
    "network": {"backbone": "test_resnet", "weights": "none"},
    "optimizer": {"lr": 0.02, "head_factor": 10, "momentum": 0.9, "weight_decay": 0.01, "clip": 0.05},
    "schedule": {"epochs": 2, "batch": 4},
}


def test_targets_by_hand() -> None:
    records = [ImageRecord("a", Path(), (1, 3)), ImageRecord("b", Path(), ()), ImageRecord("c", Path(), (2,))]
    assert targets_of(records, 3).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    plan = Plan(seed=0, epochs=1, batch=4)
    assert [plan.steps(count) for count in (1, 4, 5, 6, 8, 9)] == [1, 1, 1, 2, 2, 2]


def test_steps_equal_their_oracle() -> None:
    """Head only (everything else still), two steps: loss, clipping, decay, momentum, rates by hand."""
    chosen = TrainRecipe.model_validate_json(json.dumps(RECIPE))
    torch.manual_seed(0)
    network = Classifier("test_resnet", 3, output_stride=16)
    for parameter in network.backbone.parameters():
        parameter.requires_grad_(False)
    terms = Terms.of(chosen.objective, network, 3, chosen.seed)
    learner = learner_of(launch("cpu", "float32"), network, terms, chosen)
    records = [ImageRecord(str(i), Path(), (1 + i % 3,)) for i in range(4)]
    task = ClassifierTask(records, chosen, MEAN, STD, network, terms, torch.device("cpu"))
    task.ready()
    source = np.random.default_rng(0)
    examples = [Example(record, source.integers(0, 256, (32, 32, 3), np.uint8), 0) for record in records]
    images = normalised([example.image for example in examples], MEAN, STD, torch.device("cpu"))
    targets = np.eye(3)[[0, 1, 2, 0]]
    with torch.no_grad():
        pooled = network.features(images).mean((2, 3)).double().numpy()

    def gradients(values: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
        while True:
            probability = 1 / (1 + np.exp(-(pooled @ values[0].T)))
            yield [(probability - targets).T @ pooled / targets.size]

    start = network.head.weight.detach().double().numpy().copy()
    rates = [0.02, 0.02 * (1 - 1 / 6) ** 0.9]
    expected = oracles.sgd([start], gradients, [[10 * rate] for rate in rates], 0.9, 0.01, 0.05)
    first = oracles.soft_margin(pooled @ start.T, targets)
    work = task.work(None)
    actual = [learner.step(work, examples, number=number, total=6).loss for number in (0, 1)]
    assert actual[0] == pytest.approx(first, rel=1e-5)
    moved = network.head.weight.detach().numpy()
    assert np.abs(moved - start).max() > 1e-3
    np.testing.assert_allclose(moved, expected[0], rtol=1e-4, atol=1e-6)
