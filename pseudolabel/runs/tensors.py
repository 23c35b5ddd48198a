"""Tensors and text as the bytes of a safetensors file, the same bytes for the same content.

The library puts metadata in an order that changes from process to process; here it is sorted, since a file's
sha256 names it elsewhere and a continued run must equal an uninterrupted one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ALIGNMENT = 8  # bytes; where the format wants tensors to begin


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file.

    Args:
        tensors: contiguous, on the CPU, none sharing memory with another.
        metadata: text by name.
    """
    from safetensors.torch import save

    raw = save(dict(sorted(tensors.items())), metadata=dict(metadata))
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.dumps(json.loads(raw[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    return struct.pack("<Q", len(header)) + header + raw[8 + length :]
