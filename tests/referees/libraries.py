"""The map methods as captum, torchcam and pytorch-grad-cam compute them, before their own normalisation.

Each function takes (network, image (1, 3, h, w), class id 1..C, layer) and gives attribution as numpy: (3,
h, w) signed of gradients, (h', w') of layers, signed or rectified as the library leaves it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

import pseudolabel.classifier.network  # noqa: F401  (makes torchvision importable)

# isort: split
import captum.attr
import pytorch_grad_cam
import torchcam.methods

from tests.referees.cases import LABELS, STEPS, Case
from tests.referees.scenes import Scene

Array = NDArray[np.floating]
Referee = Callable[[nn.Module, Tensor, int, str], Array]


def asked(case: Case, where: Scene, images: Tensor) -> list[Array]:
    """A referee's answer for every target of a case, images in order."""
    referee: Referee = globals()[case.referee]
    layer = where.named if case.named else where.last
    return [
        referee(where.network, images[index : index + 1], label, layer)
        for index, row in enumerate(LABELS)
        for label in row
    ]


def captum_saliency(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    return _numpy(captum.attr.Saliency(network).attribute(image, target=label - 1, abs=False))


def captum_input_x_gradient(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    return _numpy(captum.attr.InputXGradient(network).attribute(image, target=label - 1))


def captum_integrated_gradients(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    attribution = captum.attr.IntegratedGradients(network).attribute(
        image, target=label - 1, n_steps=STEPS, method="gausslegendre"
    )
    return _numpy(attribution)


def captum_integrated_gradients_midpoint(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    attribution = captum.attr.IntegratedGradients(network).attribute(
        image, target=label - 1, n_steps=STEPS, method="riemann_middle"
    )
    return _numpy(attribution)


def captum_grad_cam(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    attribution = captum.attr.LayerGradCam(network, network.get_submodule(layer)).attribute(
        image, target=label - 1
    )
    return _numpy(attribution)[0]


def captum_hires_cam(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    method = captum.attr.LayerGradientXActivation(network, network.get_submodule(layer))
    return _numpy(method.attribute(image, target=label - 1)).sum(axis=0)


def torchcam_cam(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    with torchcam.methods.CAM(network, layer, fc_layer="head") as method:
        network(image)
        return _numpy(method(label - 1, normalized=False)[0])


def torchcam_grad_cam(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    return _torchcam(torchcam.methods.GradCAM, network, image, label, layer)


def torchcam_layer_cam(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    return _torchcam(torchcam.methods.LayerCAM, network, image, label, layer)


def pytorch_grad_cam_grad_cam(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    return _pytorch_grad_cam(pytorch_grad_cam.GradCAM, network, image, label, layer)


def pytorch_grad_cam_grad_cam_pp(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    return _pytorch_grad_cam(pytorch_grad_cam.GradCAMPlusPlus, network, image, label, layer)


def pytorch_grad_cam_layer_cam(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    return _pytorch_grad_cam(pytorch_grad_cam.LayerCAM, network, image, label, layer)


def pytorch_grad_cam_hires_cam(network: nn.Module, image: Tensor, label: int, layer: str) -> Array:
    return _pytorch_grad_cam(pytorch_grad_cam.HiResCAM, network, image, label, layer)


def _numpy(tensor: Tensor) -> Array:
    values: Array = tensor.detach()[0].numpy()
    return values


def _torchcam(
    method: type[torchcam.methods.GradCAM], network: nn.Module, image: Tensor, label: int, layer: str
) -> Array:
    with method(network, layer) as extractor:
        scores = network(image.clone().requires_grad_())
        return _numpy(extractor(label - 1, scores, normalized=False)[0])


def _pytorch_grad_cam(
    method: type[pytorch_grad_cam.GradCAM], network: nn.Module, image: Tensor, label: int, layer: str
) -> Array:
    module = network.get_submodule(layer)
    with method(network, [module]) as extractor:
        # what its forward does, without the scaling to 0..1 at the end
        scores = extractor.activations_and_grads(image.clone().requires_grad_())
        network.zero_grad()
        scores[0, label - 1].backward()
        kept = extractor.activations_and_grads
        output, gradient = kept.activations[0].numpy(), kept.gradients[0].numpy()
        values: Array = extractor.get_cam_image(image, module, None, output, gradient, False)[0]
        return values
