"""What every objective keeps: `pytest --pyargs pseudolabel.contracts.objectives`.

A component from another package is tested as soon as its entry point is installed. Traits looked at:
`adds_up` (True: the loss of a batch is the mean of the losses of its images, so that several ranks minimise
it as one does; must be said), `modules` (makes the module of its own, from network, number of classes and
parameters; handed over as `own`), `wraps` (it gets `classify`, a function of logits and targets), `figures`
(names of its figures), `oracles` (see `pseudolabel.contracts.oracles`). An oracle is handed `logit`, a
function of images (B, 3, h, w) to logits (B, C), then images, targets (B, C) and the parameters but the
weight, all in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from pseudolabel import draws, registry
from pseudolabel.contracts.inputs import beyond_bounds, variants
from pseudolabel.contracts.networks import CLASSES, Small, random_images
from pseudolabel.contracts.oracles import oracle_of
from pseudolabel.records import ObjectiveValue
from pseudolabel.registry import Component, ObjectiveParameters, Parameters

NAMES = registry.names("objectives")
TARGETS = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])
STEP = 1e-2  # of the central differences; the losses are computed in float32


@pytest.fixture(params=NAMES)
def objective(request: pytest.FixtureRequest) -> Component:
    return registry.get("objectives", request.param)


def scene() -> tuple[Small, Tensor, Tensor]:
    """A small network in training mode but for its batch norm, four images, and every kind of labels."""
    network = Small()
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # statistics of a batch make images depend on one another
    return network, random_images(4, 18, 22), TARGETS


def call(
    objective: Component,
    params: Parameters,
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    rows: tuple[int, ...] = (0, 1, 2, 3),
    own: nn.Module | None = None,
) -> ObjectiveValue:
    """The objective on a batch whose images keep the draws of their `rows`."""
    further: dict[str, Any] = {}
    if "modules" in objective.traits:
        further["own"] = own if own is not None else own_module(objective, params, network)
    if objective.traits.get("wraps"):
        further["classify"] = functional.multilabel_soft_margin_loss
    value: ObjectiveValue = objective.run(
        network, images, targets, lambda row: draws.generator("objective", rows[row]), params, **further
    )
    return value


def own_module(objective: Component, params: Parameters, network: nn.Module) -> nn.Module:
    """Its own module, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own: nn.Module = objective.traits["modules"](network, CLASSES, params)
    return own


def every(objective: Component) -> Iterator[Parameters]:
    """Its variants; the weight is no business of the objective's."""
    for params in variants(objective):
        if params.as_dict()["weight"] == 1:
            yield params


def test_loss_is_a_scalar_with_a_graph_and_figures_are_as_declared(objective: Component) -> None:
    for params in every(objective):
        network, images, targets = scene()
        value = call(objective, params, network, images, targets)
        assert value.loss.shape == ()
        assert value.loss.dtype == torch.float32
        assert value.loss.requires_grad
        assert tuple(sorted(value.figures)) == tuple(sorted(objective.traits.get("figures", ())))
        assert all(type(figure) is float for figure in value.figures.values())
        value.loss.backward()  # type: ignore[no-untyped-call]
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_equals_its_oracle(objective: Component) -> None:
    oracle = oracle_of(objective)
    network, images, targets = scene()
    losses = set()
    for params in every(objective):
        plain = {key: value for key, value in params.as_dict().items() if key != "weight"}
        expected = oracle(_logit(network), images.double().numpy(), targets.double().numpy(), **plain)
        loss = call(objective, params, network, images, targets).loss.item()
        assert loss == pytest.approx(expected, rel=1e-5), params  # float32 logits
        losses.add(round(float(expected), 4))
    fields = objective.params.model_fields.keys() - {"weight", "lr_factor"}
    assert len(losses) > 1 or not fields, "the scene must show what the parameters do"


def _logit(network: nn.Module) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    def logit(images: NDArray[np.float64]) -> NDArray[np.float64]:
        with torch.no_grad():
            logits: NDArray[np.float64] = network(torch.from_numpy(images).float()).double().numpy()
        return logits

    return logit


def test_weight_is_left_to_the_training(objective: Component) -> None:
    network, images, targets = scene()
    chosen = [objective.params.model_validate({"weight": weight}) for weight in (1.0, 7.0)]
    losses = [call(objective, params, network, images, targets).loss for params in chosen]
    assert issubclass(objective.params, ObjectiveParameters)
    assert torch.equal(losses[0], losses[1])


def test_gradient_equals_central_differences(objective: Component) -> None:
    for params in every(objective):
        network, images, targets = scene()
        own = own_module(objective, params, network) if "modules" in objective.traits else None
        call(objective, params, network, images, targets, own=own).loss.backward()  # type: ignore[no-untyped-call]
        head = network.head.weight
        assert head.grad is not None
        for index in ((0, 0), (1, 3), (3, 9)):
            sides = []
            for sign in (1, -1):
                with torch.no_grad():
                    before = head[index].clone()
                    head[index] += sign * STEP
                    sides.append(call(objective, params, network, images, targets, own=own).loss.item())
                    head[index] = before
            slope = (sides[0] - sides[1]) / (2 * STEP)
            # third derivatives times the step squared, and float32 over the step
            assert head.grad[index].item() == pytest.approx(slope, rel=5e-3, abs=2e-5), (params, index)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 30.0, 1e4])
def test_finite_on_extreme_logits(objective: Component, scale: float) -> None:
    for params in every(objective):
        network, images, targets = scene()
        with torch.no_grad():
            network.head.weight *= scale
        value = call(objective, params, network, images, targets)
        value.loss.backward()  # type: ignore[no-untyped-call]
        assert value.loss.isfinite(), params
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None), params


def test_half_precision_logits_are_computed_with_in_float32(objective: Component) -> None:
    network, images, targets = scene()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call(objective, objective.params(), network, images, targets)
    exact = call(objective, objective.params(), network, images, targets)
    assert value.loss.dtype == torch.float32
    assert value.loss.item() == pytest.approx(exact.loss.item(), rel=0.05)  # bf16 has 8 bits


@pytest.mark.parametrize("row", [0, 1, 2])
def test_batch_of_one(objective: Component, row: int) -> None:
    network, images, targets = scene()
    only = slice(row, row + 1)
    value = call(objective, objective.params(), network, images[only], targets[only], (row,))
    assert value.loss.isfinite()


def test_mean_over_images_where_it_says_so(objective: Component) -> None:
    assert "adds_up" in objective.traits, f"{objective.name}: declare adds_up=True or adds_up=False"
    for params in every(objective):
        network, images, targets = scene()
        batch_loss = call(objective, params, network, images, targets).loss.item()
        parts = [
            call(objective, params, network, images[rows], targets[rows], tuple(rows)).loss.item()
            for rows in ([0], [1, 2, 3])
        ]
        mean = (parts[0] + 3 * parts[1]) / 4
        if objective.traits["adds_up"]:
            assert mean == pytest.approx(batch_loss, rel=1e-5), params


def test_order_of_the_images_does_not_matter(objective: Component) -> None:
    order = (2, 0, 3, 1)
    for params in every(objective):
        network, images, targets = scene()
        straight = call(objective, params, network, images, targets)
        turned = call(objective, params, network, images[list(order)], targets[list(order)], order)
        assert turned.loss.item() == pytest.approx(straight.loss.item(), rel=1e-5)


def test_the_same_call_gives_the_same_bits(objective: Component) -> None:
    first, second = (
        call(objective, objective.params(), network, images, targets).loss
        for network, images, targets in (scene(), scene())
    )
    assert torch.equal(first, second)


def test_inputs_are_left_as_they_were(objective: Component) -> None:
    network, images, targets = scene()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    given = images.clone(), targets.clone()
    modes = [module.training for module in network.modules()]
    call(objective, objective.params(), network, images, targets).loss.backward()  # type: ignore[no-untyped-call]
    assert torch.equal(images, given[0])
    assert torch.equal(targets, given[1])
    assert not images.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes


def test_own_module_learns(objective: Component) -> None:
    if "modules" not in objective.traits:
        pytest.skip(f"{objective.name} brings no module")
    params = objective.params()
    network, images, targets = scene()
    own = own_module(objective, params, network)
    assert params.as_dict()["lr_factor"] > 0
    call(objective, params, network, images, targets, own=own).loss.backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in own.parameters())


def test_bounds_refuse_the_value_beyond(objective: Component) -> None:
    for key, value in beyond_bounds(objective):
        with pytest.raises(ValidationError, match=key):
            objective.params.model_validate({key: value})


def test_says_its_source_and_what_its_parameters_do(objective: Component) -> None:
    assert all(field.description for field in objective.params.model_fields.values())
    assert "Source:" in registry.documentation("objectives", objective.name)


def test_gpu_gives_what_the_cpu_gives(objective: Component) -> None:
    if objective.device == "cpu" or not torch.cuda.is_available():
        pytest.skip("no GPU here, or a component for the CPU only")
    for params in every(objective):
        network, images, targets = scene()
        here = call(objective, params, network, images, targets).loss
        own = own_module(objective, params, network).cuda() if "modules" in objective.traits else None
        there = call(objective, params, network.cuda(), images.cuda(), targets.cuda(), own=own).loss
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-6)
