"""What a person sees of a training: progress, an estimate of its time, and steps that were left out."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import console
from pseudolabel.runs import writing

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from pseudolabel.training.position import StepReport

TIMED = 5  # steps before the time is estimated; the first warms up
CODES = {"skipped": "not_finite", "scaled": "float16_overflow"}  # of problems.jsonl


@contextlib.contextmanager
def open_run(
    fabric: Fabric, out: Path | str, kind: str, fingerprint: Mapping[str, Any], **options: Any
) -> Iterator[tuple[Path, writing.RunFolder | None]]:
    """The folder of a run on every rank, and the run itself on the first one, which alone writes.

    Args:
        fabric: the ranks.
        out, kind, fingerprint, options: see `writing.open_run`.
    """
    with contextlib.ExitStack() as stack:
        run: writing.RunFolder | None = None
        if fabric.global_rank == 0:
            run = stack.enter_context(writing.open_run(out, kind, fingerprint, **options))
        path = fabric.broadcast(str(run.path) if run is not None else "")
        yield Path(path), run


class Watch:
    """What happens after each step.

    Args:
        bar: moved along.
        run: where problems are listed; None on a rank that does not write.
        quiet: say nothing.
    """

    def __init__(self, bar: console.Bar, run: writing.RunFolder | None, quiet: bool) -> None:
        self.bar, self.run, self.quiet = bar, run, quiet
        self.last = time.monotonic()
        self.times: list[float] = []

    def after_step(self, report: StepReport) -> None:
        """Move the bar, list a step that was left out, estimate the time once."""
        now = time.monotonic()
        if len(self.times) < TIMED:
            self.times.append(now - self.last)
            self.last = now
            if len(self.times) == TIMED and not self.quiet:
                self._estimate()
        self.bar.advance()
        if self.run is not None and report.outcome in CODES:
            files = ", ".join(report.ids)
            self.run.problem(files, CODES[report.outcome], str(report), "the step was left out")

    def _estimate(self) -> None:
        each = statistics.median(self.times[1:])
        left = self.bar.total - self.bar.done - 1
        time_left = console.duration(each * left)
        console.say(f"about {time_left} for {left} steps of {each:.2f} s, and validation")
