"""Where a training stands: everything beside tensors that a continued run needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["done", "skipped", "scaled", "empty"]


@dataclass(frozen=True)
class StepReport:
    """What one step did, the same on every rank.

    Attributes:
        epoch, step: counted from 0, the step within its epoch.
        ids: items of the whole batch.
        loss: over the whole batch.
        norm: of the gradient before clipping; NaN where no backward pass was finished.
        lr: learning rate of the first parameter group.
        outcome: done; skipped for a value that is not finite; scaled: left out by float16's loss scaling;
            empty: no item of the batch could be read.
        weight: of this step in the mean over the epoch.
        figures: further means over the batch.
        counts: what is added up over the epoch.
    """

    epoch: int
    step: int
    ids: tuple[str, ...]
    loss: float
    norm: float
    lr: float
    outcome: Outcome
    weight: float
    figures: Mapping[str, float]
    counts: Mapping[str, int]

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch + 1}, step {self.step + 1}: loss {self.loss:.4g}, gradient norm "
            f"{self.norm:.4g}, learning rate {self.lr:.3g}, images {', '.join(self.ids)}"
        )


@dataclass
class Position:
    """Where a training stands.

    Attributes:
        epoch, step: finished epochs, and finished steps of the epoch that runs.
        loss, weight: weighted sum of the losses of this epoch, and the sum of the weights.
        figures: the same sum of each further figure.
        counts: sums over this epoch.
        skipped, scaled: steps of this epoch left out, see `StepReport.outcome`.
        in_a_row, skipped_ever, scaled_in_a_row: what the limits look at.
        best: highest validation score, or None.
        history: a row for each finished epoch.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    weight: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    scaled: int = 0
    in_a_row: int = 0
    skipped_ever: int = 0
    scaled_in_a_row: int = 0
    best: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """As JSON-able data; `Position(**plain)` gives it back."""
        return asdict(self)

    def count(self, report: StepReport) -> None:
        """Move past a step."""
        self.step += 1
        self.skipped += report.outcome == "skipped"
        self.scaled += report.outcome == "scaled"
        self.skipped_ever += report.outcome == "skipped"
        self.in_a_row = self.in_a_row + 1 if report.outcome == "skipped" else 0
        self.scaled_in_a_row = self.scaled_in_a_row + 1 if report.outcome == "scaled" else 0
        for name, value in report.counts.items():
            self.counts[name] = self.counts.get(name, 0) + value
        if report.outcome == "done" and report.weight:
            self.loss += report.weight * report.loss
            self.weight += report.weight
            for name, figure in report.figures.items():
                self.figures[name] = self.figures.get(name, 0.0) + report.weight * figure

    def row(self, lr: float) -> dict[str, Any]:
        """What the epoch that ran says of itself; no time and no machine, so that it repeats.

        Args:
            lr: learning rate of the first parameter group at the epoch's last step.
        """
        return {
            "epoch": self.epoch + 1,
            "loss": self.loss / self.weight if self.weight else None,
            **{name: value / self.weight for name, value in self.figures.items()},
            "lr": lr,
            "steps": self.step,
            "steps_skipped": self.skipped,
            "steps_scaled": self.scaled,
            **self.counts,
        }

    def next_epoch(self, row: dict[str, Any]) -> None:
        """Close the epoch that ran with its row."""
        self.history.append(row)
        self.epoch, self.step = self.epoch + 1, 0
        self.loss, self.weight, self.figures, self.counts = 0.0, 0.0, {}, {}
        self.skipped, self.scaled = 0, 0
