"""The segmentation network: an smp decoder on any encoder, for images of any size.

Images go in as 8-bit RGB; normalisation, padding to the stride and cutting back happen inside, so
that nobody can forget them and output size is always input size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

import segtrain._torchvision  # noqa: F401
from pseudolabel.errors import UsageError

import segmentation_models_pytorch as smp  # isort: skip  (imports torchvision)

STRIDE = 16  # pixels; DeepLab of smp takes multiples of its deepest stride
RATES = {16: (6, 12, 18), 8: (12, 24, 36)}  # cells, DeepLab-v3 (arXiv 1706.05587); smp's own fit stride 8
DECODERS = {"deeplabv3plus": smp.DeepLabV3Plus, "deeplabv3": smp.DeepLabV3}
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Architecture:
    """What decides a network's tensors: compared before any of them is loaded.

    Attributes:
        decoder, encoder, output_stride: see the recipe.
        mean, std: normalisation of RGB in 0..1.
    """

    decoder: str
    encoder: str
    output_stride: int
    mean: Colour
    std: Colour


class SegmentationNetwork(nn.Module):
    """Images (B, 3, H, W) of 0..255 to logits (B, C+1, H, W) float.

    Args:
        architecture: see there.
        classes: C+1, the background included.
        frozen_norm: batch norm of the encoder keeps its running statistics in training.

    Raises:
        UsageError: smp or timm does not know the encoder, or cannot give it this output stride.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture, classes: int, frozen_norm: bool = False) -> None:
        super().__init__()
        self.architecture = architecture
        self.frozen_norm = frozen_norm
        try:
            self.network = DECODERS[architecture.decoder](
                architecture.encoder,
                encoder_weights=None,
                encoder_output_stride=architecture.output_stride,
                decoder_atrous_rates=RATES[architecture.output_stride],
                classes=classes,
            )
        except (KeyError, RuntimeError, ValueError, NotImplementedError, TypeError) as error:
            cause = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise UsageError(
                f"network.encoder: {architecture.encoder!r} does not make a {architecture.decoder} "
                f"({cause}); take an smp encoder or tu-<timm model>"
            ) from error
        self.register_buffer("mean", torch.tensor(architecture.mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(architecture.std).view(3, 1, 1) * 255, persistent=False)
        single = _SingleValues()
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.register_forward_pre_hook(single.before)
                module.register_forward_hook(single.after, always_call=True)

    def train(self, mode: bool = True) -> SegmentationNetwork:
        """As any module's, but a frozen norm stays in evaluation mode."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.network.encoder.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the size of the images; padding is the mean colour, at the right and below."""
        height, width = images.shape[-2:]
        pixels = (images.to(self.mean) - self.mean) / self.std
        pixels = functional.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE))
        if next(self.network.parameters()).is_contiguous(memory_format=torch.channels_last):
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(pixels)
        return logits[..., :height, :width]

    def groups(self, lr: float, decoder_factor: float) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer: the encoder, and the rest with a faster rate."""
        encoder = list(self.network.encoder.parameters())
        known = {id(parameter) for parameter in encoder}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [{"params": encoder, "lr": lr}, {"params": rest, "lr": lr * decoder_factor}]


class _SingleValues:
    """Batch norm over one value has no variance: that forward uses the running statistics.

    Happens with a batch of one behind the pooling of ASPP, or for images of a single cell.
    """

    def __init__(self) -> None:
        self.spared: set[nn.Module] = set()

    def before(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0]
        if module.training and values.numel() == values.shape[1]:
            module.training = False
            self.spared.add(module)

    def after(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if module in self.spared:
            module.training = True
            self.spared.remove(module)
