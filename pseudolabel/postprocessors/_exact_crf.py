"""Mean field of a dense CRF with its exact kernels, in memory that grows with the pixels alone.

    Q = softmax(-U);  repeat:  Q = softmax(-U + sum_m w_m D_m^(-1/2) K_m D_m^(-1/2) Q),   D = diag(K 1)

The sum over pixels includes the pixel itself. The kernel that sees colour is softmax attention: with features
f and c = -|f|^2 / 2, K_ij = exp(f_i.f_j + c_i + c_j), so that

    q' = [f, 1], k' = [f, c]:   attention(q', k', V) = D^-1 K V
    D^(-1/2) K D^(-1/2) Q = n^(1/2) attention(q', k', Q n^(-1/2))

and n comes from a pass with one key more, [0, 0, 1] against a column -c of the queries: its weight is
1 / (1 + n), which is what comes out where its value is 1 and every other 0. The kernel blind to colour is a
product of a kernel along y and one along x, each normalised for itself: two small matrix products.

Source: Krahenbuhl and Koltun 2011 (arXiv 1210.5644), the update; as attention: own derivation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pseudolabel.postprocessors._dense_crf import Preset

ALIGNED = 4  # columns: attention kernels for float32 on a GPU read 16 bytes at once


def mean_field(energy: Tensor, image: Tensor, chosen: Preset) -> Tensor:
    """Probabilities of every label after `chosen.iterations` updates.

    Args:
        energy: (L, H, W) float32, the unary -log p.
        image: (H, W, 3) float32 in steps of 0..255, on the same device.
        chosen: weights and reaches; `unary` and `confidence` are not looked at.

    Returns:
        (L, H, W) float32, summing to 1 over L.
    """
    messages = []
    if chosen.position_weight:
        messages.append((chosen.position_weight, _by_position(energy, chosen.position_xy)))
    if chosen.colour_weight:
        features = _features(image, chosen.colour_xy, chosen.colour_rgb)
        messages.append((chosen.colour_weight, _by_colour(features)))
    marginals = (-energy).softmax(0)
    for _ in range(chosen.iterations):
        logits = -energy
        for weight, message in messages:
            logits = logits + weight * message(marginals)
        marginals = logits.softmax(0)
    return marginals


def _by_position(like: Tensor, reach: float) -> Callable[[Tensor], Tensor]:
    """Q (L, H, W) -> normalised message of exp(-|p_i - p_j|^2 / 2 reach^2)."""
    along_y, along_x = (_line(size, reach, like.device) for size in like.shape[1:])
    # float64, since float32 products of matrices may be done in tf32, as the program's settings say
    return lambda marginals: (along_y @ marginals.double() @ along_x).float()


def _line(size: int, reach: float, device: torch.device) -> Tensor:
    """(size, size) float64, the symmetrically normalised Gaussian kernel along one axis."""
    steps = torch.arange(size, dtype=torch.float64, device=device) / reach
    kernel = torch.exp(-((steps[:, None] - steps) ** 2) / 2)
    root = kernel.sum(1).rsqrt()
    return root[:, None] * kernel * root


def _features(image: Tensor, reach: float, colour_reach: float) -> Tensor:
    """(H * W, 5) float32 of unit reach; centred, which quarters |f|^2 and with it the error of its sums."""
    height, width = image.shape[:2]
    ys = torch.arange(height, dtype=torch.float64, device=image.device) / reach
    xs = torch.arange(width, dtype=torch.float64, device=image.device) / reach
    places = torch.stack(torch.meshgrid(ys, xs, indexing="ij"), dim=2)
    features = torch.cat([places, image.double() / colour_reach], dim=2).flatten(0, 1)
    return (features - features.mean(0)).float()


def _by_colour(features: Tensor) -> Callable[[Tensor], Tensor]:
    """Q (L, H, W) -> normalised message of the kernel over `features` (N, d)."""
    count, depth = features.shape
    own = -(features.double() ** 2).sum(1, keepdim=True).float() / 2
    query = torch.cat([features, torch.ones_like(own), -own], dim=1)
    key = features.new_zeros(count + 1, depth + 2)
    key[:count, : depth + 1] = torch.cat([features, own], dim=1)
    key[count, depth + 1] = 1
    sentinel = features.new_zeros(count + 1, 1)
    sentinel[count] = 1
    # n >= 1, as the pixel itself is in the sum
    total = (1 / _attention(query, key, sentinel) - 1).clamp(min=1)
    root = total.sqrt()

    def message(marginals: Tensor) -> Tensor:
        values = marginals.flatten(1).T / root
        return (root * _attention(query, key[:count], values)).T.reshape(marginals.shape)

    return message


def _attention(query: Tensor, key: Tensor, values: Tensor) -> Tensor:
    """softmax(query key^T) values, (N, d), (M, d), (M, L) -> (N, L), without the matrix.

    All three get the same number of columns: otherwise the CPU's tiled kernel refuses them and the whole
    matrix would be made. On a GPU flash attention refuses float32; the memory-efficient kernel
    takes it.
    """
    wanted = max(key.shape[1], values.shape[1])
    wanted += -wanted % ALIGNED
    q, k, v = (
        functional.pad(tensor, (0, wanted - tensor.shape[1]))[None, None] for tensor in (query, key, values)
    )
    return functional.scaled_dot_product_attention(q, k, v, scale=1.0)[0, 0, :, : values.shape[1]]
