"""Class maps of several logits to a class: logsumexp, its gradient, and the weights of CAM."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pseudolabel import registry
from pseudolabel.contracts.networks import CLASSES, Small, random_images
from pseudolabel.errors import DataError
from pseudolabel.explain.method import build
from pseudolabel.explain.model import Explained
from pseudolabel.records import Attribution, Targets

GROUPS = ((0, 2), (3,), (1, 3, 0))
LABELS = [(1, 3), (2,), (1, 2, 3)]
METHODS = registry.names("methods")


def attribution(name: str, model: Explained, labels: list[tuple[int, ...]]) -> Attribution:
    component = registry.get("methods", name)
    params = component.params.model_validate(component.traits.get("small", {}))
    return build((component, params)).explain(model, random_images(), Targets.of(labels), [(0,)] * 3)


@pytest.mark.parametrize("name", METHODS)
def test_each_logit_its_own_class_is_no_class_map(name: str) -> None:
    own = tuple((index,) for index in range(CLASSES))
    mapped, plain = (attribution(name, Explained(Small(), groups=groups), LABELS) for groups in (own, None))
    torch.testing.assert_close(mapped.values, plain.values)
    torch.testing.assert_close(mapped.logits, plain.logits)
    torch.testing.assert_close(mapped.totals, plain.totals)


@pytest.mark.parametrize("name", METHODS)
def test_a_class_of_one_logit_has_the_map_of_that_logit(name: str) -> None:
    mapped = attribution(name, Explained(Small(), groups=GROUPS), [(2,)] * 3)
    plain = attribution(name, Explained(Small()), [(4,)] * 3)
    torch.testing.assert_close(mapped.values, plain.values)


def test_the_logit_is_the_logsumexp_of_its_own() -> None:
    model = Explained(Small(), groups=GROUPS)
    assert model.classes == 3
    raw = Small().eval()(random_images()).double()
    wanted = torch.stack([raw[:, list(group)].exp().sum(dim=1).log() for group in GROUPS], dim=1)
    logits, totals = model.outputs(random_images())
    torch.testing.assert_close(logits.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(totals.double(), raw.exp().sum(dim=1).log(), rtol=1e-5, atol=1e-5)
    shares = (wanted - raw.logsumexp(dim=1, keepdim=True)).exp()
    torch.testing.assert_close(model.probabilities(random_images()).double(), shares, rtol=1e-4, atol=1e-6)
    plain = Explained(Small())
    torch.testing.assert_close(plain.probabilities(random_images()), plain.scores(random_images()).sigmoid())


def test_the_weights_of_cam_are_the_gradient_by_the_pooled_features() -> None:
    model = Explained(Small().double(), groups=GROUPS)
    actual = attribution_of_double(model)
    pooled = model.features(random_images().double()).mean(dim=(2, 3)).requires_grad_()
    features = model.features(random_images().double())
    raw = model.network.head(pooled)
    for target, (image, label) in enumerate(
        (image, label) for image, row in enumerate(LABELS) for label in row
    ):
        logit = raw[image, list(GROUPS[label - 1])].logsumexp(dim=0)
        (row,) = torch.autograd.grad(logit, pooled, retain_graph=True)
        wanted = torch.einsum("d,dhw->hw", row[image], features[image])
        torch.testing.assert_close(actual.values[target, 0], wanted)
        # the map's mean is what its logits are on average, weighted by their softmax in the group
        shares = raw[image, list(GROUPS[label - 1])].softmax(dim=0)
        mean = (shares * raw[image, list(GROUPS[label - 1])]).sum()
        torch.testing.assert_close(actual.values[target].mean(), mean.detach())


def attribution_of_double(model: Explained) -> Attribution:
    component = registry.get("methods", "cam")
    return build((component, component.params())).explain(
        model, random_images().double(), Targets.of(LABELS), [(0,)] * 3
    )


def test_saliency_is_the_gradient_of_the_logsumexp() -> None:
    network = Small().double().eval()
    actual = build((component := registry.get("methods", "saliency"), component.params())).explain(
        Explained(network, groups=GROUPS), random_images().double(), Targets.of(LABELS), [(0,)] * 3
    )
    for target, (image, label) in enumerate(
        (image, label) for image, row in enumerate(LABELS) for label in row
    ):
        inputs = random_images().double()[image : image + 1].requires_grad_()
        logit = network(inputs)[0, list(GROUPS[label - 1])].exp().sum().log()
        (wanted,) = torch.autograd.grad(logit, inputs)
        torch.testing.assert_close(actual.values[target], wanted[0], rtol=1e-7, atol=1e-10)


def test_a_class_map_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"groups: class 2 has logits \[4\], not some of 0\.\.3"):
        Explained(Small(), groups=((0,), (4,)))
    with pytest.raises(ValueError, match=r"groups: class 1 has logits \[\]"):
        Explained(Small(), groups=((), (1,)))
    with pytest.raises(ValueError, match=r"class 4 is not in 1\.\.3"):
        attribution("cam", Explained(Small(), groups=GROUPS), [(4,)] * 3)


class Deep(Small):
    """Two layers between the pooled features and the logits."""

    pooled = False

    def __init__(self) -> None:
        super().__init__()
        self.between = nn.Linear(10, 10)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.between(features.mean(dim=(2, 3))).relu())
        return logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(images))


@pytest.mark.parametrize("name", METHODS)
def test_a_head_of_two_layers(name: str) -> None:
    torch.manual_seed(0)
    model = Explained(Deep())
    if name == "cam":
        with pytest.raises(DataError, match="no class activation map; take grad_cam, hires_cam or layer_cam"):
            attribution(name, model, LABELS)
        return
    result = attribution(name, model, LABELS)
    assert result.values.isfinite().all()
    torch.testing.assert_close(result.logits[:2], model.logits(random_images())[0, [0, 2]].detach())
