"""Digits and the small networks that the contribution window is measured on."""

from __future__ import annotations

import argparse
import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pseudolabel import draws
from pseudolabel.runs import disk
from scripts.experiments.results import say

WIDTHS = (16, 32, 32, 64, 64)  # channels of the five convolutions
CLASSES = 10
BATCH = 16  # 1875 steps in 5 epochs of 6000; the full set in batches of 128 takes 2345
RATE = 1e-3  # learning rate of Adam
NOISE = 0.1  # largest intensity of a canvas: enough to keep the inner ReLUs active everywhere
MIDDLE = 2  # cells around the middle one that may stay activated in `Sparse`


@dataclass(frozen=True)
class Digits:
    """Images (N, 3, 28, 28) float32 in 0..1 and digits (N,)."""

    images: Tensor
    digits: Tensor

    def first(self, count: int | None) -> Digits:
        """The first so many."""
        return Digits(self.images[:count], self.digits[:count])

    @property
    def truth(self) -> NDArray[np.uint8]:
        """(N, 28, 28) uint8: digit + 1 where the intensity is above 0.5, else background."""
        inside = self.images[:, 0] > 0.5
        truth: NDArray[np.uint8] = (inside * (self.digits + 1)[:, None, None]).to(torch.uint8).numpy()
        return truth

    def on_canvas(self, margin: int) -> Digits:
        """The images with a margin, faint noise all over."""
        framed = nn.functional.pad(self.images, (margin,) * 4)
        noise = torch.rand(framed[:, :1].shape, generator=draws.generator("canvas", margin))
        return Digits(torch.maximum(framed, NOISE * noise), self.digits)


def load(path: Path) -> tuple[Digits, Digits]:
    """Training and test digits of an npz file."""
    parts = []
    with np.load(path, allow_pickle=False) as arrays:
        for part in ("train", "test"):
            grey = torch.from_numpy(arrays[f"x_{part}"]).float() / 255
            images = grey[:, None].expand(-1, 3, -1, -1)
            parts.append(Digits(images, torch.from_numpy(arrays[f"y_{part}"]).long()))
    return parts[0], parts[1]


@dataclass(frozen=True)
class Variant:
    """A variant of the network: the size of its kernels, with or without bias in the convolutions."""

    kernel: int
    bias: bool

    @property
    def window(self) -> int:
        """R, pixels a side that a feature cell sees."""
        return len(WIDTHS) * (self.kernel - 1) + 1

    @property
    def stem(self) -> str:
        """The variant in a file's name."""
        return f"f{self.kernel}{'-bias' if self.bias else ''}"

    def __str__(self) -> str:
        return f"{self.kernel}{' with bias' if self.bias else ''}"


class Network(nn.Module):
    """Five convolutions of one size and a linear head; images (B, 3, h, w) of three equal channels."""

    def __init__(self, kernel: int, bias: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in WIDTHS:
            layers += [nn.Conv2d(before, width, kernel, padding=kernel // 2, bias=bias), nn.ReLU()]
            before = width
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(before, CLASSES, bias=False)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) in 0..1 -> (B, 64, h, w) >= 0."""
        features: Tensor = self.trunk(images.mean(dim=1, keepdim=True))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 10) logits."""
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


class Sparse(nn.Module):
    """A network with a bias before its last ReLU, for each image just so low that few cells stay activated.

    Its inner layers stay active everywhere, so that the gradient fills the window of those cells.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.head = network, network.head

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 64, h, w) >= 0, 0 but in the middle."""
        features = self.network.features(images)
        outer = features.detach().clone()
        row, column = features.shape[2] // 2, features.shape[3] // 2
        outer[:, :, row - MIDDLE : row + MIDDLE + 1, column - MIDDLE : column + MIDDLE + 1] = 0
        left = (features - outer.amax(dim=(2, 3), keepdim=True)).relu()
        # an image in which nothing would be left keeps its features
        return torch.where(left.amax(dim=(1, 2, 3), keepdim=True) > 0, left, features)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 10) logits."""
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


def trained(variant: Variant, seed: int, train: Digits, options: argparse.Namespace) -> Network:
    """A network after `epochs` of Adam; continues after the last epoch that is kept in `work`."""
    path = options.work / f"{variant.stem}-seed{seed}.pt"
    torch.manual_seed(draws.seed_of("network", seed, variant.kernel, int(variant.bias)))
    network = Network(variant.kernel, variant.bias)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    done = 0
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        if kept["train"] != [len(train.digits), BATCH] or kept["epoch"] > options.epochs:
            raise SystemExit(f"{path}: trained with other options; take another --work")
        network.load_state_dict(kept["network"])
        optimizer.load_state_dict(kept["optimizer"])
        done = kept["epoch"]
    for epoch in range(done, options.epochs):
        start = time.monotonic()
        order = torch.randperm(len(train.digits), generator=draws.generator("order", seed, epoch))
        losses = []
        for chosen in torch.split(order, BATCH):
            optimizer.zero_grad()
            inputs = train.images[chosen].contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(network(inputs), train.digits[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch + 1,
            "train": [len(train.digits), BATCH],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write_bytes(path, buffer.getvalue())
        seconds = time.monotonic() - start
        say(f"F {variant}, seed {seed}, epoch {epoch + 1}: loss {np.mean(losses):.3f}, {seconds:.1f} s")
    network.eval()
    return network
