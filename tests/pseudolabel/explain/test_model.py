"""The frozen model: folding, the gradient probe, parts, memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import pseudolabel._torchvision  # noqa: F401

# isort: split
import torchvision

from pseudolabel.classifier.network import Classifier
from pseudolabel.contracts.networks import Small, random_images
from pseudolabel.errors import DataError, Interrupted, MachineError
from pseudolabel.explain.folding import folded
from pseudolabel.explain.model import Explained
from pseudolabel.records import Attribution, Targets
from tests.referees.scenes import calibrated


def worst(actual: Tensor, wanted: Tensor) -> float:
    return float((actual.double() - wanted).detach().abs().amax() / wanted.detach().abs().amax())


class Torchvision(nn.Module):
    """torchvision's ResNet18: plain batch norm, an in-place ReLU shared by a block, a bias in the head."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torchvision.models.resnet18(num_classes=5)
        self.head = self.net.fc

    def features(self, images: Tensor) -> Tensor:
        net = self.net
        grid = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        return net.layer4(net.layer3(net.layer2(net.layer1(grid))))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


@pytest.mark.parametrize(
    ("backbone", "norms"),
    [("tf_efficientnet_lite0", 49), ("resnet18", 20), ("test_efficientnet", 13), ("torchvision", 20)],
)
def test_folding_keeps_logits_and_gradients(backbone: str, norms: int) -> None:
    # SAME padding, batch norm with an activation inside, plain batch norm
    torch.manual_seed(0)
    network = calibrated(Torchvision() if backbone == "torchvision" else Classifier(backbone, 5))
    exact = copy.deepcopy(network).double()
    plain, model = Explained(exact, fold=False), Explained(exact)
    assert (plain.norms, model.norms) == (0, norms)
    assert not [m for m in model.network.modules() if isinstance(m, nn.BatchNorm2d)]
    images = [random_images(1, 65, 96).double().requires_grad_() for _ in range(2)]
    wanted, actual = plain.logits(images[0]), model.logits(images[1])
    # in float64 folding is exact; in float32 a ReLU at its kink may fall on either side
    assert worst(actual, wanted) < 1e-12
    gradients = [
        torch.autograd.grad(logits[0, 2], image)[0]
        for logits, image in zip((wanted, actual), images, strict=True)
    ]
    assert worst(gradients[1], gradients[0]) < 1e-10
    single = Explained(network)
    assert single.norms == norms
    assert worst(single.logits(random_images(1, 65, 96)), wanted) < 1e-5  # rounding, with or without folding


class Twice(Small):
    """One convolution that two norms read: neither may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(10), nn.BatchNorm2d(10)
        calibrated(self)

    def features(self, images: Tensor) -> Tensor:
        grid: Tensor = self.trunk[6](self.trunk[:6](images))
        return torch.relu(self.first(grid) + self.second(grid))


class Between(Small):
    """Something happens between convolution and norm, in place."""

    def features(self, images: Tensor) -> Tensor:
        grid: Tensor = self.trunk[0](images)
        grid.add_(1.0)
        return self.trunk[1:](grid)


class Rescaled(nn.Conv2d):
    """A convolution that changes its weights as it runs."""

    def forward(self, images: Tensor) -> Tensor:
        weight = self.weight / self.weight.flatten(1).norm(dim=1)[:, None, None, None]
        return nn.functional.conv2d(images, weight, self.bias, self.stride, self.padding)


@pytest.mark.parametrize("kind", [Twice, Between])
def test_what_cannot_be_folded_stays_right(kind: type[Small]) -> None:
    network = kind().eval()
    images = random_images(2)
    assert worst(Explained(network).logits(images), network(images)) < 1e-4


def test_a_fold_that_changes_the_logits_is_dropped() -> None:
    network = Small().eval()
    network.trunk[0] = Rescaled(3, 8, 3, stride=2, padding=1, bias=False)
    images = random_images(2)
    model = Explained(network)
    assert model.norms == 0
    assert worst(model.logits(images), network(images)) < 1e-6
    assert len(folded(Small().eval(), random_images(1))[1]) == 2  # the same without the strange convolution


def test_the_network_itself_is_never_changed() -> None:
    network = Small().train()
    before = copy.deepcopy(network.state_dict())
    model = Explained(network)
    model.scores(random_images())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert not model.network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class Cut(Small):
    """IRN's classifier: the graph is cut in the trunk."""

    def features(self, images: Tensor) -> Tensor:
        return super().features(images).detach()


class Stopped(Small):
    """Cut below a layer that still has parameters."""

    def features(self, images: Tensor) -> Tensor:
        return self.trunk[3:](self.trunk[:3](images).detach())


class Zeroed(Small):
    """Every weight of the head is zero."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.head.weight)


@pytest.mark.parametrize("kind", [Cut, Stopped, Zeroed])
def test_a_gradient_that_does_not_arrive_is_an_error(kind: type[Small]) -> None:
    with pytest.raises(DataError, match="no gradient reaches the input"):
        Explained(kind()).probe()


def test_the_probe_runs_once() -> None:
    model = Explained(Small())
    runs: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda *_: runs.append(1))
    model.probe()
    model.probe()
    assert len(runs) == 1


def test_forwards_hold_at_most_a_batch() -> None:
    model = Explained(Small(), batch=3)
    sizes: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    wanted = Small().eval()(random_images(8))
    torch.testing.assert_close(model.scores(random_images(8)), wanted, rtol=1e-4, atol=1e-5)
    assert sizes == [3, 3, 2]


def explain_ones(model: Explained, full: int) -> Attribution:
    """One value a target; memory runs out above `full` images."""

    def part(images: Tensor, targets: Targets) -> Attribution:
        if len(images) > full:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        values = images.mean(dim=(1, 2, 3))[list(targets.images)] * torch.tensor(targets.classes)
        return Attribution(values[:, None, None, None], values)

    return model.in_parts(random_images(7), Targets.of([(1, 2), (), (3,), (1,), (2, 3), (4,), (1,)]), part)


def test_memory_that_runs_out_halves_the_batch() -> None:
    wanted = explain_ones(Explained(Small(), batch=7), 99)
    model = Explained(Small(), batch=7)
    actual = explain_ones(model, 2)
    assert (model.batch, model.asked) == (1, 7)  # 7, 3, 1
    assert torch.equal(actual.values, wanted.values)
    with pytest.raises(MachineError, match="memory of cpu runs out for one image of 26x35"):
        explain_ones(model, 0)


def test_another_fault_is_not_taken_for_memory() -> None:
    def part(images: Tensor, targets: Targets) -> Attribution:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        Explained(Small()).in_parts(random_images(2), Targets.of([(1,), (2,)]), part)


def test_nothing_to_explain_is_refused() -> None:
    with pytest.raises(ValueError, match="no target to explain"):
        Explained(Small()).in_parts(random_images(2), Targets((), ()), lambda *_: pytest.fail("called"))
    with pytest.raises(ValueError, match="batch 0 is not above 0"):
        Explained(Small(), batch=0)


def test_a_batch_is_left_before_its_next_part() -> None:
    model = Explained(Small(), batch=2)
    sizes: list[int] = []
    model.leave = lambda: len(sizes) == 2
    model.network.trunk[0].register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    with pytest.raises(Interrupted):
        model.scores(random_images(8))
    assert sizes == [2, 2]
