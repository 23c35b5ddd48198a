"""Random draws that follow from (seed, id, index) and from nothing else.

No generator's history, worker, batch or list order can change them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*key: int | str) -> int:
    """A 63-bit seed: the head of sha256 over the parts of the key, kept apart by their lengths."""
    text = "".join(f"{len(str(part))}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A fresh CPU generator for one key, for instance `generator(seed, image_id, crop)`."""
    import torch

    return torch.Generator(device="cpu").manual_seed(seed_of(*key))
