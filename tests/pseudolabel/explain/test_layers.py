"""Target layers: found by name, hooked where the norm was folded away, and nothing before them kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pseudolabel import registry
from pseudolabel.classifier.network import Classifier
from pseudolabel.contracts.networks import Small, random_images
from pseudolabel.errors import DataError
from pseudolabel.explain.method import build
from pseudolabel.explain.model import Explained
from pseudolabel.records import Targets
from tests.referees.scenes import calibrated

FAMILY = ["grad_cam", "grad_cam_pp", "hires_cam", "layer_cam"]


def maps(network: nn.Module, name: str, layer: str | None = None, fold: bool = True) -> Tensor:
    component = registry.get("methods", name)
    line = build((component, component.params.model_validate({"layer": layer})))
    attribution = line.explain(
        Explained(network, fold=fold), random_images(2), Targets.of([(1, 3), (2,)]), [(0,)] * 2
    )
    return attribution.values


def test_a_layer_is_found_by_its_name_or_an_end_of_it() -> None:
    model = Explained(Small())
    assert model.layer_name() == "last features"
    assert model.layer_name("trunk.3") == "trunk.3"
    deeper = Explained(Classifier("test_efficientnet", 3))
    assert deeper.layer_name("conv_head") == "backbone.conv_head"
    with pytest.raises(
        DataError, match=r"layer: 'trunc\.3' is not a module of the network; did you mean 'trunk\.3'"
    ):
        model.layer_name("trunc.3")
    with pytest.raises(DataError, match=r"'conv_haed' is not a .*; did you mean 'conv_head'\?"):
        deeper.layer_name("conv_haed")  # far from its whole name, near to an end of it
    with pytest.raises(DataError, match=r"layer: 'bn1' may be backbone\.bn1, .*; write the whole name"):
        deeper.layer_name("bn1")


def test_the_network_may_choose_its_layer() -> None:
    network = Small()
    network.target = "trunk.5"  # type: ignore[assignment]
    assert Explained(network).layer_name() == "trunk.5"
    assert torch.equal(maps(network, "grad_cam"), maps(Small(), "grad_cam", "trunk.5"))


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(
    "layer",
    ["conv_head", "backbone.bn1", "bn1.act", "blocks.1.0", "blocks.1.0.conv_exp", "backbone.bn2.drop"],
)
def test_folding_does_not_change_what_a_layer_is(name: str, layer: str) -> None:
    # a convolution's own output is restored; a norm that is gone leaves its place
    torch.manual_seed(1)
    network = calibrated(Classifier("test_efficientnet", 4)).double()
    if layer == "bn1.act":
        layer = "backbone.bn1.act"
    component = registry.get("methods", name)
    line = build((component, component.params.model_validate({"layer": layer})))
    images = random_images(2, 64, 96).double()
    actual, wanted = (
        line.explain(Explained(network, fold=fold), images, Targets.of([(1, 3), (2,)]), [(0,)] * 2).values
        for fold in (True, False)
    )
    torch.testing.assert_close(actual, wanted, rtol=1e-7, atol=1e-9 * float(wanted.abs().amax()))
    assert bool((wanted != 0).any())


class Ending(Small):
    """A convolution in a box of its own, its norm outside; one channel that the norm makes constant."""

    def __init__(self) -> None:
        super().__init__()
        self.box = nn.Sequential(self.trunk[0])
        self.rest = self.trunk[1:]
        with torch.no_grad():
            self.trunk[1].weight[2] = 0
        del self.trunk

    def features(self, images: Tensor) -> Tensor:
        grid: Tensor = self.rest(self.box(images))
        return grid


@pytest.mark.parametrize("layer", ["box", "box.0"])
def test_a_box_that_ends_in_a_folded_convolution(layer: str) -> None:
    for name in ("grad_cam", "hires_cam"):
        actual, wanted = maps(Ending(), name, layer), maps(Ending(), name, layer, fold=False)
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().amax()))
        assert bool((wanted != 0).any())


class InPlace(Small):
    """What follows a layer works on its output in place."""

    def __init__(self) -> None:
        super().__init__()
        for index in (2, 5, 7):
            self.trunk[index] = nn.ReLU(inplace=True)


@pytest.mark.parametrize("layer", ["trunk.1", "trunk.4", "trunk.6"])
def test_what_follows_may_work_in_place(layer: str) -> None:
    for name in FAMILY:
        assert torch.equal(maps(InPlace(), name, layer), maps(Small(), name, layer))


class Shared(Small):
    """One activation at three places, as torchvision's blocks have it."""

    def features(self, images: Tensor) -> Tensor:
        relu, trunk = self.trunk[2], self.trunk
        return relu(trunk[6](relu(trunk[4](trunk[3](relu(trunk[1](trunk[0](images))))))))


def test_of_a_module_that_runs_several_times_the_last_counts() -> None:
    assert torch.equal(maps(Shared(), "grad_cam", "trunk.2"), maps(Shared(), "grad_cam"))


def test_nothing_before_the_layer_is_in_the_graph() -> None:
    model = Explained(Small())
    for layer in (None, "trunk.3"):
        grown_at: list[tuple[str, bool]] = []
        hooks = [
            module.register_forward_hook(
                lambda m, i, out, n=name, to=grown_at: to.append((n, out.requires_grad))
            )
            for name, module in model.network.named_modules()
            if name in ("trunk.0", "trunk.2", "trunk.5", "head")
        ]
        run = model.activations(random_images().requires_grad_(), layer)
        for hook in hooks:
            hook.remove()
        grown = layer == "trunk.3"
        assert grown_at == [("trunk.0", False), ("trunk.2", False), ("trunk.5", grown), ("head", True)]
        assert run.output.is_leaf
        assert not run.totals.requires_grad


def test_one_forward_and_a_backward_to_the_layer_a_slot() -> None:
    model = Explained(Small())
    forwards: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda *_: forwards.append(1))
    model.network.trunk[0].register_full_backward_hook(lambda *_: pytest.fail("went through the trunk"))
    backwards: list[int] = []
    model.network.head.register_full_backward_hook(lambda *_: backwards.append(1))
    component = registry.get("methods", "grad_cam")
    labels = [(1, 3), (2,), (1, 2, 4)]
    build((component, component.params())).explain(model, random_images(), Targets.of(labels), [(0,)] * 3)
    assert (len(forwards), len(backwards)) == (1, 3)


class Pair(nn.Module):
    """Gives two things."""

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        return values, values


class Odd(Small):
    """A module that never runs, one that gives a pair, one whose output goes nowhere, one without a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.pair, self.side_road = nn.Identity(), Pair(), nn.Conv2d(10, 2, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.pair(self.features(images))[0]
        self.side_road(features)
        return self.head(self.pool(features).flatten(1))


@pytest.mark.parametrize(
    ("layer", "fault"),
    [
        ("idle", "'idle' does not run when the network classifies"),
        ("pair", "'pair' gives tuple, not a tensor"),
        ("side_road", "the logits do not depend on 'side_road'"),
        ("head", r"an output of shape \(2, 4\) is no grid of features"),
    ],
)
def test_a_layer_that_cannot_be_explained_is_refused(layer: str, fault: str) -> None:
    with pytest.raises(DataError, match=f"layer: .*{fault}|layer: {fault}"):
        maps(Odd(), "grad_cam", layer)


def test_hooks_are_gone_after_a_fault() -> None:
    model = Explained(Odd())
    with pytest.raises(DataError):
        model.activations(random_images(), "pair")
    assert not any(module._forward_hooks for module in model.network.modules())
