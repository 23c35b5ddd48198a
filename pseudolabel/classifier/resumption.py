"""Where a training stands, and the two files that carry it over an interruption.

`last.safetensors` is the newest whole state, `previous.safetensors` the one before it: a damaged `last`
costs the steps since then and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pseudolabel.classifier.network import Classifier
from pseudolabel.errors import DataError
from pseudolabel.training.checkpoint import load_state, pack_optimizer, save_state, unpack_optimizer


@dataclass
class Course:
    """Where a training stands.

    Attributes:
        epoch: epochs finished, validation included.
        position: steps done of the epoch under way.
        loss: sum of the epoch's losses so far, weighted by images.
        images: how many those were.
        skipped: steps in a row that half precision left out.
        history: a line an epoch, as in metrics.jsonl.
    """

    epoch: int = 0
    position: int = 0
    loss: float = 0.0
    images: int = 0
    skipped: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Training:
    """What learns: the network, its optimizer, half precision's scaler."""

    network: Classifier
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


class Resumption:
    """The state files of one run.

    Args:
        folder: `RUN/checkpoints`.
        fingerprint: digest of the run; a state of another one is refused.
        say: told when `last` is damaged and the state before it is used.
    """

    def __init__(self, folder: Path, fingerprint: str, say: Callable[[str], None]) -> None:
        self.last = folder / "last.safetensors"
        self.previous = folder / "previous.safetensors"
        self._fingerprint = fingerprint
        self._say = say
        self._whole = False  # whether `last` is known to be good, so that it may replace `previous`

    def save(self, training: Training, course: Course) -> None:
        """Write the state; the one before it is kept.

        Raises:
            NumericError: a tensor is not finite; both files stay.
        """
        slots, meta = pack_optimizer(training.optimizer)
        tensors = {f"network.{k}": v for k, v in training.network.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in slots.items()}
        self.last.parent.mkdir(parents=True, exist_ok=True)
        if self._whole:
            os.replace(self.last, self.previous)
        self._whole = False
        save_state(
            self.last,
            tensors,
            {
                "fingerprint": self._fingerprint,
                "course": asdict(course),
                "optimizer": meta,
                "scaler": training.scaler.state_dict(),
            },
        )
        self._whole = True

    def load(self, training: Training) -> Course | None:
        """Put the newest whole state back.

        Returns:
            Where it stands, or None where there is no state.

        Raises:
            DataError: there are states and none can be read, or they are another run's.
        """
        damaged: DataError | None = None
        for file in (self.last, self.previous):
            if not file.is_file():
                continue
            try:
                tensors, meta = load_state(file)
            except DataError as fault:
                damaged = fault
                self._say(f"{file.name} is damaged; looking at the state before it")
                continue
            if meta.get("fingerprint") != self._fingerprint:
                raise DataError(f"{file}: the state of another run; train into a new folder")
            training.network.load_state_dict(_part(tensors, "network."), strict=True)
            unpack_optimizer(training.optimizer, _part(tensors, "optimizer."), meta["optimizer"])
            training.scaler.load_state_dict(meta["scaler"])
            self._whole = file == self.last
            return Course(**meta["course"])
        if damaged:
            raise DataError(f"{damaged}; start again with --overwrite")
        return None


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
