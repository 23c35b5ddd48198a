"""What every test shares: one torch thread, no network but loopback, the folder of images."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)
IMAGES = Path(os.environ.get("PSEUDOLABEL_SHARED", Path(__file__).parents[2] / "shared")) / "data"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection but loopback."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and str(address[0]) not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real images; the test is skipped where there is none."""
    if not (IMAGES / "voc").is_dir():
        pytest.skip(f"no images at {IMAGES.name}/voc beside the checkout")
    return IMAGES
