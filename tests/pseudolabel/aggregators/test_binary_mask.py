"""BinaryMask: its masks, the gradient to them, and crops of masked images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch.nn.functional import interpolate

from pseudolabel import registry
from pseudolabel.aggregators import binary_mask as module
from pseudolabel.aggregators import random_crop as crops
from pseudolabel.aggregators import smoothgrad
from pseudolabel.aggregators.binary_mask import BinaryMask
from pseudolabel.aggregators.multiscale import Multiscale
from pseudolabel.aggregators.random_crop import RandomCrop
from pseudolabel.aggregators.smoothgrad import Smoothgrad
from pseudolabel.contracts.networks import Functions, Small, functions, random_images
from pseudolabel.explain.method import BoundMethod, build
from pseudolabel.explain.model import Explained
from pseudolabel.records import Attribution, Targets
from pseudolabel.registry import Parameters
from tests.oracles import aggregators as oracles

KEYS = [(0, "a"), (0, "b"), (0, "c")]
LABELS = [(1, 3), (2,), (1, 2, 4)]
TARGETS = Targets.of(LABELS)
COMPONENTS = {
    BinaryMask: module.binary_mask,
    RandomCrop: crops.random_crop,
    Multiscale: registry.get("aggregators", "multiscale"),
    Smoothgrad: registry.get("aggregators", "smoothgrad"),
}
Array = NDArray[np.float64]


def line(method: str, *around: Parameters) -> BoundMethod:
    component = registry.get("methods", method)
    return build(
        (component, component.params()),
        [(COMPONENTS[type(params)], params) for params in around],
    )


def explained(bound: BoundMethod, batch: int = 16) -> Attribution:
    return bound.explain(Explained(Small(), batch=batch), random_images(), TARGETS, KEYS)


def close(actual: torch.Tensor | Array, wanted: torch.Tensor | Array) -> None:
    """Float32 sums, relative to the map's largest value."""
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(np.asarray(actual), wanted, rtol=1e-4, atol=3e-5 * np.abs(wanted).max())


def test_one_mask_that_keeps_all_is_the_method_itself_or_input_times_gradient() -> None:
    plain = explained(line("saliency")).values
    image = line("saliency", BinaryMask(count=1, keep=1.0, gradient_to="image"))
    attribution = explained(image)
    assert torch.equal(attribution.values, plain.abs())
    assert torch.equal(image.reduce(attribution.values), plain.abs().amax(dim=1))
    products = (plain * random_images()[list(TARGETS.images)]).sum(dim=1).abs()
    close(explained(line("saliency", BinaryMask(count=1, keep=1.0))).values[:, 0], products)
    votes = explained(line("cam", BinaryMask(count=1, keep=1.0))).values
    assert torch.equal(votes, explained(line("cam")).values.relu())


def test_the_gradient_to_the_mask_is_autograd_s() -> None:
    network = functions(Small()).network
    attribution = explained(line("saliency", BinaryMask(count=3))).values[:, 0]
    wanted = torch.zeros(6, 26, 35, dtype=torch.float64)
    for row, (image, label) in enumerate(zip(TARGETS.images, TARGETS.classes, strict=True)):
        for index in range(3):
            mask = module.mask(KEYS[image], index, (26, 35), 0.9).double().requires_grad_()
            logit = network((random_images()[image].double() * mask)[None])[0, label - 1]
            (gradient,) = torch.autograd.grad(logit, mask)
            wanted[row] += gradient[0].abs() / 3
    close(attribution, wanted)


@pytest.mark.parametrize("accumulate", ["signed_in_chunk", "abs_per_crop"])
@pytest.mark.parametrize("chunk", [2, 100])
def test_crops_of_masked_images_equal_their_oracle(chunk: int, accumulate: Any) -> None:
    params = RandomCrop(count=5, size=20, chunk=chunk, accumulate=accumulate)
    masked = BinaryMask(count=2, keep=0.8)
    result = explained(line("saliency", params, masked), batch=7)
    network = functions(Small())
    for row, (image, label) in enumerate(zip(TARGETS.images, TARGETS.classes, strict=True)):
        masks = module.drawn(KEYS[image], (26, 35), masked)["masks"]
        windows = [crops.drawn((*KEYS[image], index), (26, 35), params)["windows"] for index in range(2)]
        assert windows[0] != windows[1], "new crops for each mask"
        expected = oracles.masked_crops(
            inner_of(network, label),
            random_images()[image].double().numpy(),
            masks,
            windows,
            params.as_dict(),
        )
        close(result.values[row, 0], expected)
    assert result.uncovered is not None
    assert float(result.uncovered.amin()) > 0


def inner_of(network: Functions, label: int) -> Callable[[Array], tuple[Array, float, float]]:
    """Saliency of a view, for oracles."""

    def inner(view: Array) -> tuple[Array, float, float]:
        logits = network.logits(view)
        return network.gradient(view, label), logits[label - 1], float(np.logaddexp.reduce(logits))

    return inner


def test_crops_of_a_masked_image_are_autograd_s_gradient_to_the_mask() -> None:
    params = RandomCrop(count=4, size=20, chunk=100)
    attribution = explained(line("saliency", params, BinaryMask(count=1))).values[:, 0]
    network = functions(Small()).network
    for row, (image, label) in enumerate(zip(TARGETS.images, TARGETS.classes, strict=True)):
        mask = module.mask(KEYS[image], 0, (26, 35), 0.9).double().requires_grad_()
        masked, score = random_images()[image].double() * mask, torch.zeros((), dtype=torch.float64)
        for window in crops.draw((*KEYS[image], 0), (26, 35), params):
            crop = interpolate(window.of(masked)[None], size=(20, 20), mode="bilinear", align_corners=False)
            logit = network(crop)[0, label - 1]
            score = score + logit.detach().sigmoid() * logit
        (gradient,) = torch.autograd.grad(score, mask)
        close(attribution[row], gradient[0].abs())


def test_masks_around_crops_of_crops_look_at_the_crop_of_the_image() -> None:
    inside, outside = RandomCrop(count=2, size=12, scale=(0.3, 0.9)), RandomCrop(count=3, size=18, chunk=2)
    attribution = explained(line("saliency", inside, outside, BinaryMask(count=2)), batch=5).values[:, 0]
    network = functions(Small())
    for row, (image, label) in enumerate(zip(TARGETS.images, TARGETS.classes, strict=True)):
        input_image = random_images()[image].double().numpy()
        total = 0.0
        for index in range(2):
            key = (*KEYS[image], index)
            mask = module.mask(KEYS[image], index, (26, 35), 0.9).double().numpy()
            windows = crops.drawn(key, (26, 35), outside)["windows"]
            views = iter(range(3))

            def crop_of(
                view: Array,
                key: Any = key,
                windows: Any = windows,
                views: Any = views,
                input_image: Any = input_image,
                label: int = label,
            ) -> tuple[Array, float, float]:
                number = next(views)
                top, left, tall, wide = windows[number]
                original = oracles.resize(input_image[:, top : top + tall, left : left + wide], (18, 18))
                logits: list[float] = []
                totals: list[float] = []

                def inner(crop: Array) -> tuple[Array, float, float]:
                    values, logit, everything = inner_of(network, label)(crop)
                    logits.append(logit)
                    totals.append(everything)
                    return values, logit, everything

                small = crops.drawn((*key, number), (18, 18), inside)["windows"]
                values, _ = oracles.random_crop(
                    inner,
                    lambda gradient: oracles.gradient_to_mask(gradient, original),
                    "adjoint",
                    view,
                    small,
                    **inside.as_dict(),
                )
                return values[None], float(np.mean(logits)), float(np.mean(totals))

            total = (
                total
                + oracles.random_crop(
                    crop_of,
                    lambda values: values[0],
                    "adjoint",
                    input_image * mask,
                    windows,
                    **outside.as_dict(),
                )[0]
            )
        close(attribution[row], np.asarray(total) / 2)


def test_masks_around_flips_look_at_the_flipped_image() -> None:
    # around a method that is symmetric already, flips double the map: a mix-up of sides would show
    params = RandomCrop(count=2, size=16, scale=(1.0, 1.0), ratio=(35 / 26, 35 / 26), weight="none")
    mirrored = Multiscale(scales=(1.0,))
    attribution = explained(line("saliency", params, mirrored, BinaryMask(count=1))).values[:, 0]
    network = functions(Small()).network
    for row, (image, label) in enumerate(zip(TARGETS.images, TARGETS.classes, strict=True)):
        total = 0.0
        for flip in (False, True):
            mask = module.mask(KEYS[image], 0, (26, 35), 0.9).double().requires_grad_()
            view = random_images()[image].double() * mask
            view = view.flip(-1) if flip else view
            crop = interpolate(view[None], size=(16, 16), mode="bilinear", align_corners=False)
            (gradient,) = torch.autograd.grad(2 * network(crop)[0, label - 1], mask)
            total = total + gradient[0].abs().numpy()
        close(attribution[row], total)


def test_masks_of_masked_images_go_to_the_outer_mask() -> None:
    attribution = explained(line("saliency", BinaryMask(count=2, keep=0.7), BinaryMask(count=3))).values[:, 0]
    network = functions(Small()).network
    for row, (image, label) in enumerate(zip(TARGETS.images, TARGETS.classes, strict=True)):
        total = torch.zeros(26, 35, dtype=torch.float64)
        for outer in range(3):
            for inner in range(2):
                mask = module.mask(KEYS[image], outer, (26, 35), 0.9).double().requires_grad_()
                second = module.mask((*KEYS[image], outer), inner, (26, 35), 0.7).double()
                logit = network((random_images()[image].double() * mask * second)[None])[0, label - 1]
                (gradient,) = torch.autograd.grad(logit, mask)
                total += gradient[0].abs() / 6
        close(attribution[row], total)


def test_crops_inside_two_masks_are_masked_by_both() -> None:
    inside = RandomCrop(count=2, size=16, scale=(1.0, 1.0), ratio=(35 / 26, 35 / 26), weight="none")
    bound = line("saliency", inside, BinaryMask(count=1, keep=0.6), BinaryMask(count=1))
    attribution = explained(bound).values[:, 0]
    network = functions(Small()).network
    for row, (image, label) in enumerate(zip(TARGETS.images, TARGETS.classes, strict=True)):
        mask = module.mask(KEYS[image], 0, (26, 35), 0.9).double().requires_grad_()
        second = module.mask((*KEYS[image], 0), 0, (26, 35), 0.6).double()
        masked = (random_images()[image].double() * mask * second)[None]
        crop = interpolate(masked, size=(16, 16), mode="bilinear", align_corners=False)
        (gradient,) = torch.autograd.grad(2 * network(crop)[0, label - 1], mask)
        close(attribution[row], gradient[0].abs())


def test_noise_inside_masks_keeps_the_masks_around() -> None:
    bound = line("saliency", Smoothgrad(count=2, mean_of="signed"), BinaryMask(count=2, gradient_to="image"))
    assert explained(bound).values.shape == (6, 3, 26, 35)
    zero = line("saliency", Smoothgrad(count=1, sigma=0.0, mean_of="signed"), BinaryMask(count=2))
    close(explained(zero).values, explained(line("saliency", BinaryMask(count=2))).values)


@pytest.mark.parametrize("mean_of", ["absolute", "squared", "signed", "variance"])
def test_masks_around_noise_are_the_difference_quotient_of_the_mask(mean_of: Any) -> None:
    params = Smoothgrad(count=3, sigma=0.2, mean_of=mean_of)
    attribution = explained(line("saliency", params, BinaryMask(count=2)), batch=5).values
    assert attribution.shape == (6, 1, 26, 35)
    network, step = functions(Small()).network, 1e-5
    row = 3  # of the image "c": its class 1
    image, label = TARGETS.images[row], TARGETS.classes[row]
    original, total = random_images()[image].double(), torch.zeros(26, 35, dtype=torch.float64)
    for index in range(2):
        key = (*KEYS[image], index)
        mask = module.mask(KEYS[image], index, (26, 35), 0.9).double()
        spread = params.sigma * float((original * mask).max() - (original * mask).min())
        quotients = []
        for noise in smoothgrad.drawn(key, (26, 35), params)["noises"]:
            noisy = torch.from_numpy(spread * noise)
            pixels = torch.eye(26 * 35, dtype=torch.float64).reshape(-1, 1, 26, 35) * step
            with torch.no_grad():
                up, down = (
                    torch.cat([network(original * part + noisy)[:, label - 1] for part in moved.split(130)])
                    for moved in (mask + pixels, mask - pixels)
                )
            quotients.append(((up - down) / (2 * step)).reshape(26, 35))
        each = torch.stack(quotients)
        means = {
            "absolute": each.abs().mean(0),
            "squared": each.square().mean(0),
            "signed": each.mean(0).abs(),
            "variance": each.var(0, correction=0),
        }
        total += means[mean_of] / 2
    # a quotient across a kink of a ReLU is off at its pixel, and so is rounding by the step
    difference = (attribution[row, 0].double() - total).abs() / total.max()
    assert float(difference.median()) < 1e-5
    assert float((difference > 1e-3).double().mean()) < 0.02


@pytest.mark.parametrize("mean_of", ["absolute", "squared", "variance"])
def test_crops_of_noise_inside_masks_look_at_the_crop_of_the_image(mean_of: Any) -> None:
    full_crop = RandomCrop(count=1, size=16, scale=(1.0, 1.0), ratio=(35 / 26, 35 / 26), weight="none")
    noise = Smoothgrad(count=3, sigma=0.2, mean_of=mean_of)
    attribution = explained(line("saliency", noise, full_crop, BinaryMask(count=1))).values[:, 0]
    network = functions(Small()).network
    for row, (image, label) in enumerate(zip(TARGETS.images, TARGETS.classes, strict=True)):
        original = random_images()[image].double()
        mask = module.mask(KEYS[image], 0, (26, 35), 0.9).double()

        def crop_of(values: torch.Tensor) -> torch.Tensor:
            return interpolate(values[None], size=(16, 16), mode="bilinear", align_corners=False)

        crop, spread = crop_of(original * mask), 0.2 * float(crop_of(original * mask).max())
        spread -= 0.2 * float(crop.min())
        gradients = []
        for drawn_noise in smoothgrad.drawn((*KEYS[image], 0, 0), (16, 16), noise)["noises"]:
            view = (crop + spread * torch.from_numpy(drawn_noise)).requires_grad_()
            (gradient,) = torch.autograd.grad(network(view)[0, label - 1], view)
            gradients.append((gradient * crop_of(original)).sum(dim=1)[0])
        each = torch.stack(gradients)
        means = {
            "absolute": each.abs().mean(0),
            "squared": each.square().mean(0),
            "variance": each.var(0, correction=0),
        }
        back = torch.zeros(1, 1, 26, 35, dtype=torch.float64, requires_grad=True)
        small = interpolate(back, size=(16, 16), mode="bilinear", align_corners=False)
        (wanted,) = torch.autograd.grad((small[0, 0] * means[mean_of]).sum(), back)
        close(attribution[row], wanted[0, 0])


def test_masks_are_one_for_all_channels_and_keep_their_share() -> None:
    masks = torch.stack([module.mask((0, "a"), index, (40, 60), 0.75) for index in range(20)])
    assert masks.shape == (20, 1, 40, 60)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert float(masks.mean()) == pytest.approx(0.75, abs=0.01)
    assert not torch.equal(masks[0], masks[1])
    inputs: list[torch.Tensor] = []

    def watch(model: object, images: torch.Tensor, targets: Targets, keys: object) -> Attribution:
        inputs.append(images)
        return Attribution(torch.ones(len(targets.images), 1, 4, 4), torch.zeros(len(targets.images)))

    inner = BoundMethod(watch, lambda values: values[:, 0], "paste")
    module.binary_mask.run(inner, BinaryMask(count=2, keep=0.5)).explain(
        Explained(Small()), random_images(1), Targets((0,), (1,)), KEYS[:1]
    )
    expected = [module.mask(KEYS[0], index, (26, 35), 0.5) * random_images(1)[0] for index in range(2)]
    assert torch.equal(torch.cat(inputs), torch.stack(expected))


def test_forwards_are_full_and_shared_by_images() -> None:
    model = Explained(Small(), batch=4)
    model.probe()
    sizes: list[int] = []
    model.network.trunk[0].register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    line("saliency", BinaryMask(count=5)).explain(model, random_images(), TARGETS, KEYS)
    assert sizes == [4, 4, 4, 3]


def test_defaults_are_the_authors() -> None:
    params = BinaryMask()
    assert (params.count, params.keep, params.gradient_to) == (50, 0.9, "mask")


@pytest.mark.parametrize("bad", [{"count": 0}, {"keep": 0.0}, {"keep": 1.1}, {"gradient_to": "input"}])
def test_parameters_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(bad))):
        BinaryMask.model_validate(bad)
