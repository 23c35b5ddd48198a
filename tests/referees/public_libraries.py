"""CAM by torchcam, saliency by captum, and a loop over captum on the windows of `random_crop`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

import pseudolabel.classifier.network  # noqa: F401  (makes torchvision importable)

# isort: split
import captum.attr
import torchcam.methods

from pseudolabel.aggregators.random_crop import RandomCrop, draw
from tests.referees.public_scenes import CLASSES, CROPS, FEATURES, SEED, image, model, wide


def asked(name: str, what: str) -> NDArray[np.floating]:
    """Maps (K, H, W) as the libraries compute them."""
    return {"cam": cam, "saliency": saliency, "crops": crops}[what](name)


def cam(name: str) -> NDArray[np.floating]:
    """torchcam's map before its own scaling to 0..1: its positive part on the image."""
    layer, head = FEATURES[name]
    network, inputs = model(name), image(name)
    maps = []
    for index in CLASSES:
        with torchcam.methods.CAM(network, layer, fc_layer=head) as method:
            network(inputs)
            maps.append(method(index, normalized=False)[0])
    values = torch.cat(maps).detach().relu()
    values_on_image: NDArray[np.floating] = interpolate(values[None], size=inputs.shape[2:], mode="bilinear")[
        0
    ].numpy()
    return values_on_image


def saliency(name: str) -> NDArray[np.floating]:
    """captum's absolute gradient, its largest channel."""
    network, inputs = model(name), image(name)
    attributions = [
        captum.attr.Saliency(network).attribute(inputs, target=index, abs=True) for index in CLASSES
    ]
    return np.concatenate([values.amax(dim=1).detach().numpy() for values in attributions])


def crops(name: str) -> NDArray[np.floating]:
    """captum's gradient of each window, weighted by the sigmoid of its logit, signs summed within a chunk."""
    network, inputs, index = model(name), wide(), CLASSES[0]
    params = RandomCrop.model_validate(CROPS)
    size = int(inputs.shape[2]), int(inputs.shape[3])

    def recorded(window: Tensor) -> Tensor:
        return network(interpolate(window, size=(params.size, params.size), mode="bilinear"))

    total, chunk = torch.zeros(size, dtype=torch.float64), torch.zeros_like(inputs[0])
    for number, w in enumerate(draw((SEED, "image"), size, params), start=1):
        window = w.of(inputs).clone()
        gradient = captum.attr.Saliency(recorded).attribute(window, target=index, abs=False)[0]
        w.of(chunk).add_(recorded(window)[0, index].sigmoid().detach() * gradient.detach())
        if number % params.chunk == 0 or number == params.count:
            total += chunk.abs().amax(dim=0)
            chunk.zero_()
    values: NDArray[np.floating] = total[None].numpy()
    return values
