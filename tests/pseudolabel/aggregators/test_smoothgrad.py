"""SmoothGrad: its noise, its means, and its identities."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from pseudolabel import registry
from pseudolabel.aggregators import smoothgrad as module
from pseudolabel.aggregators.smoothgrad import Smoothgrad
from pseudolabel.contracts.networks import Small, random_images
from pseudolabel.explain.method import BoundMethod, build
from pseudolabel.explain.model import Explained
from pseudolabel.records import Attribution, Targets

KEYS = [(0, "a"), (0, "b"), (0, "c")]
LABELS = [(1, 3), (2,), (1, 2, 4)]


def line(method: str, channels: str | None = None, **params: object) -> BoundMethod:
    component = registry.get("methods", method)
    own = component.params.model_validate({"channels": channels} if channels else {})
    aggregator = registry.get("aggregators", "smoothgrad")
    return build((component, own), [(aggregator, Smoothgrad.model_validate(params))] if params else [])


def explained(bound: BoundMethod, batch: int = 16) -> Attribution:
    return bound.explain(Explained(Small(), batch=batch), random_images(), Targets.of(LABELS), KEYS)


@pytest.mark.parametrize(
    ("method", "channels", "mean_of"),
    [
        ("saliency", "max_abs", "signed"),
        ("saliency", "signed_sum", "signed"),
        ("saliency", "max_abs", "absolute"),
        ("saliency", "l2", "absolute"),
        ("cam", None, "signed"),
        ("cam", None, "absolute"),
    ],
)
def test_one_copy_without_noise_is_the_method_itself(method: str, channels: str | None, mean_of: str) -> None:
    plain, bound = line(method, channels), line(method, channels, count=1, sigma=0.0, mean_of=mean_of)
    actual, wanted = explained(bound), explained(plain)
    assert torch.equal(bound.reduce(actual.values), plain.reduce(wanted.values))
    assert torch.equal(actual.logits, wanted.logits)


def test_without_noise_there_is_no_variance() -> None:
    attribution = explained(line("saliency", count=4, sigma=0.0, mean_of="variance")).values
    signed = explained(line("saliency", count=4, sigma=0.0, mean_of="signed")).values
    assert float(attribution.abs().amax()) < 1e-9 * float(signed.square().amax()) + 1e-12


def test_squared_is_variance_and_the_square_of_the_mean() -> None:
    squared, signed, variance = (
        explained(line("saliency", count=7, mean_of=mean_of)).values
        for mean_of in ("squared", "signed", "variance")
    )
    torch.testing.assert_close(
        squared, signed.square() + variance, rtol=1e-4, atol=1e-6 * float(squared.amax())
    )
    assert float(variance.amax()) > 0.01 * float(squared.amax())
    assert (variance >= 0).all()


def test_the_mean_of_absolutes_is_at_least_the_absolute_mean() -> None:
    absolute = explained(line("saliency", count=7)).values
    signed = explained(line("saliency", count=7, mean_of="signed")).values
    assert (absolute >= signed.abs() - 1e-6).all()
    assert float((absolute - signed.abs()).amax()) > 0.01 * float(absolute.amax())


def test_channels_are_kept_for_the_reduce_of_the_method() -> None:
    bound = line("saliency", "signed_sum", count=3)
    attribution = explained(bound)
    assert attribution.values.shape == (6, 3, 26, 35)
    assert torch.equal(bound.reduce(attribution.values), attribution.values.sum(dim=1))


def test_noise_is_a_share_of_each_image_s_own_range() -> None:
    inputs: list[torch.Tensor] = []

    def watch(model: object, images: torch.Tensor, targets: Targets, keys: object) -> Attribution:
        inputs.append(images)
        return Attribution(torch.ones(len(targets.images), 1, 4, 4), torch.zeros(len(targets.images)))

    images = random_images(2) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    bound = module.smoothgrad.run(
        BoundMethod(watch, lambda values: values[:, 0], "paste"), Smoothgrad(count=8, sigma=0.2)
    )
    bound.explain(Explained(Small(), batch=64), images, Targets.of([(1,), (2,)]), KEYS[:2])
    copies = torch.cat(inputs).view(2, 8, 3, 26, 35)
    for image, own in zip(images, copies, strict=True):
        noise = (own - image) / (0.2 * (image.max() - image.min()))
        assert float(noise.mean()) == pytest.approx(0, abs=0.03)
        assert float(noise.std()) == pytest.approx(1, abs=0.03)
        # each copy, channel and pixel its own
        flat = noise.reshape(24, -1)
        correlation = torch.corrcoef(flat) - torch.eye(24)
        assert float(correlation.abs().amax()) < 0.2


def test_noise_follows_from_seed_id_and_index_alone() -> None:
    first = module.noise((0, "a"), 3, (5, 7))
    torch.manual_seed(99)
    assert torch.equal(module.noise((0, "a"), 3, (5, 7)), first)
    for other in (((0, "a"), 2), ((1, "a"), 3), ((0, "b"), 3)):
        assert not torch.equal(module.noise(*other, (5, 7)), first)


def test_forwards_are_full_and_shared_by_images() -> None:
    model = Explained(Small(), batch=4)
    model.probe()
    sizes: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    line("saliency", count=5).explain(model, random_images(), Targets.of(LABELS), KEYS)
    assert sizes == [4, 4, 4, 3]


def test_defaults() -> None:
    params = Smoothgrad()
    assert (params.count, params.sigma, params.mean_of) == (50, 0.15, "absolute")


@pytest.mark.parametrize(
    "bad",
    [{"count": 0}, {"sigma": -0.1}, {"mean_of": "mean"}, {"num": 3}, {"mean_of": "variance", "count": 1}],
)
def test_parameters_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(bad))):
        Smoothgrad.model_validate(bad)
