"""What is found in a model by one traced forward: its linear head, its target layer, its size."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pseudolabel._torchvision  # noqa: F401

# isort: split
import timm
import torchvision

from pseudolabel.contracts.networks import random_images, state_of
from pseudolabel.errors import DataError
from pseudolabel.explain.adapter import Adapter, adapted
from pseudolabel.explain.model import Explained


class Hand(nn.Module):
    """Two convolutions and a linear head; functions for all between, as people write them."""

    def __init__(self, pooling: str = "mean", classes: int = 4) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 9, 3, stride=2)
        self.fc = nn.Linear(9, classes)
        self.pooling = pooling

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.second(F.relu(self.first(images))))
        match self.pooling:
            case "mean":
                return self.fc(x.mean((2, 3)))
            case "function":
                return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
            case "view":
                return self.fc(x.view(x.shape[0], x.shape[1], -1).mean(-1))
            case "channels last":
                return self.fc(x.permute(0, 2, 3, 1).mean((1, 2)))
            case "tokens":
                return self.fc(x.flatten(2).transpose(1, 2).mean(dim=1))
            case "head first":
                return self.fc(x.permute(0, 2, 3, 1)).mean(dim=(1, 2))
            case "maximum":
                return self.fc(x.amax((2, 3)))
            case "scaled":
                return self.fc(x.mean((2, 3))) * 3
            case _:
                return self.fc(F.layer_norm(x.mean((2, 3)), (9,)))

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(images))))


def hand(pooling: str) -> Hand:
    torch.manual_seed(1)
    return Hand(pooling).eval()


@pytest.mark.parametrize("pooling", ["mean", "function", "view", "channels last", "tokens", "head first"])
def test_a_linear_head_on_pooled_features_is_found(pooling: str) -> None:
    model, images = hand(pooling), random_images(2, 50, 70)
    explained = Explained(adapted(model))
    assert explained.network.pooled
    features = explained.features(images)
    torch.testing.assert_close(features, model.features(images), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(explained.raw(features), model(images), rtol=1e-5, atol=1e-6)
    assert torch.equal(explained.network.head.weight, model.fc.weight)


@pytest.mark.parametrize("pooling", ["maximum", "scaled", "norm"])
def test_no_other_head_is_taken_for_one(pooling: str) -> None:
    adapter = adapted(hand(pooling))
    assert not adapter.pooled
    assert adapter.head.out_features == adapter.count == 4
    assert adapter.target == "model.second"


def test_a_pointwise_convolution_may_be_the_head() -> None:
    torch.manual_seed(0)
    before = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    after = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 5, 1), nn.Flatten()
    )
    images = random_images(2, 40, 50)
    for model, conv in ((before, before[2]), (after, after[3])):
        explained = Explained(adapted(model))
        assert explained.network.pooled
        features = explained.features(images)
        torch.testing.assert_close(features, model[:2](images))
        torch.testing.assert_close(explained.raw(features), model(images), rtol=1e-5, atol=1e-6)
        assert torch.equal(explained.network.head.weight, conv.weight.flatten(1))


def test_a_relu_after_the_head_makes_it_no_head() -> None:
    # the convolution's output is worked on in place, so that what it wrote is gone when it is compared
    torch.manual_seed(0)
    for inplace in (True, False):
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.SiLU(),
            nn.Conv2d(6, 5, 1),
            nn.ReLU(inplace),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        assert not adapted(model).pooled


@pytest.mark.parametrize(
    ("name", "pooled", "target", "fixed"),
    [
        ("timm/resnet18", True, None, None),
        ("timm/test_efficientnet", True, None, None),
        ("timm/test_vit", False, "model.blocks.5.norm1", (160, 160)),
        ("timm/test_convnext", False, "model.stages.3", None),
        ("torchvision/resnet18", True, None, None),
        ("torchvision/densenet121", True, None, None),  # a ReLU that is a function comes before the mean
        ("torchvision/swin_t", True, None, None),  # channels last
        ("torchvision/mobilenet_v3_small", False, "model.features.12", None),
    ],
)
def test_known_networks(name: str, pooled: bool, target: str | None, fixed: tuple[int, int] | None) -> None:
    torch.manual_seed(0)
    library, _, short = name.partition("/")
    model = timm.create_model(short) if library == "timm" else torchvision.models.get_model(short)
    adapter = adapted(model)
    assert (adapter.pooled, adapter.target, adapter.fixed) == (pooled, target, fixed)
    if pooled:
        images = random_images(1, 97, 130)
        with torch.no_grad():
            wanted = model.eval()(images)
            actual = adapter.classify(adapter.features(images))
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_of_a_class_token_the_layer_before_is_explained() -> None:
    torch.manual_seed(0)
    explained = Explained(adapted(timm.create_model("test_vit", num_classes=3, img_size=64)))
    run = explained.activations(torch.randn(1, 3, 64, 64))
    assert explained.layer_name() == "model.blocks.5.norm1"
    assert run.grid(run.output).shape == (1, 64, 4, 4)


class OneSize(nn.Module):
    """Takes 32 x 48 alone, as a network that flattens its features does."""

    image_size = (32, 48)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 96, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


def test_a_model_of_one_size_gets_images_of_that_size() -> None:
    torch.manual_seed(0)
    model, adapter = OneSize().eval(), adapted(OneSize().eval())
    adapter.model.load_state_dict(model.state_dict())
    assert (adapter.fixed, adapter.side) == ((32, 48), 32)
    assert adapter.target == "model.body.1"
    for size in ((32, 48), (70, 65), (20, 30)):
        actual, wanted = (random_images(1, *size).double().float().requires_grad_() for _ in range(2))
        adapter(actual)[0, 1].backward()
        resized = F.interpolate(wanted, size=(32, 48), mode="bilinear", antialias=True)
        model(resized)[0, 1].backward()
        torch.testing.assert_close(actual.grad, wanted.grad, rtol=1e-4, atol=1e-6)
        assert bool((actual.grad != 0).any())


class Gives(nn.Module):
    """A classifier whose forward gives its logits in some form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.inner, self.form = Hand(), form

    def forward(self, images: Tensor) -> object:
        logits = self.inner(images)
        return {
            "object": SimpleNamespace(logits=logits, loss=None),
            "dict": {"logits": logits},
            "tuple": (logits, self.inner.features(images)),
            "two": (logits, logits + 1),
            "maps": self.inner.features(images),
            "text": "cat",
        }[self.form]


@pytest.mark.parametrize("form", ["object", "dict", "tuple"])
def test_logits_are_found_in_what_a_model_gives(form: str) -> None:
    model = Gives(form)
    images = random_images(1, 40, 50)
    adapter = adapted(model)
    assert adapter.pooled
    torch.testing.assert_close(adapter(images), model.inner.eval()(images))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("two", r"model: gives a tuple of 2, not logits \(images, classes\); wrap it in a module"),
        ("maps", r"model: gives a tensor \(1, 9, 23, 39\), not logits"),
        ("text", r"model: gives a str, not logits"),
    ],
)
def test_what_holds_no_logits_is_refused(form: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        adapted(Gives(form))
    assert "\n" not in str(refused.value)


def test_a_model_that_takes_no_image_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"model: takes no normalised image .* of 96 x 160, 224, .*RuntimeError"
    ):
        adapted(nn.Sequential(nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(3, 2)))
    with pytest.raises(
        DataError, match=r"model: a function is no torch\.nn\.Module; wrap its call in a module"
    ):
        adapted(lambda images: images)  # type: ignore[arg-type]


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = Hand()
    model.kept = model.fc.weight * 2  # type: ignore[assignment]
    with pytest.raises(
        DataError, match=r"model: cannot be copied \(.*\); detach the tensors among its attributes"
    ):
        adapted(model)


def test_half_precision_becomes_single() -> None:
    adapter = adapted(hand("mean").bfloat16())
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}
    assert {p.dtype for p in adapted(hand("mean").double()).parameters()} == {torch.float64}


def test_a_parallel_or_compiled_model_is_taken_as_what_it_holds() -> None:
    model = hand("mean")
    wrapped = nn.DataParallel(model)
    assert type(adapted(wrapped).model) is Hand
    assert type(adapted(torch.compile(model, backend="eager")).model) is Hand  # type: ignore[arg-type]


def test_the_model_is_left_as_it_was() -> None:
    model = Hand().train()
    model(random_images(1)).sum().backward()
    before = dict(state_of(model))
    gradient = model.fc.weight.grad
    adapter = adapted(model)
    assert isinstance(adapter, Adapter)
    assert not adapter.training
    assert all(p.grad is None and not p.requires_grad for p in adapter.parameters())
    after = dict(state_of(model))
    assert all(
        torch.equal(v, after[k]) if isinstance(v, Tensor) else v == after[k] for k, v in before.items()
    )  # type: ignore[arg-type]
    assert model.fc.weight.grad is gradient
