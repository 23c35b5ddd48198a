"""When a training with losses or gradients that are not finite has to end."""

from __future__ import annotations

from pseudolabel.errors import NumericError
from pseudolabel.training.position import Position, StepReport

MOST_SKIPPED_IN_A_ROW = 10  # steps
MOST_SKIPPED = 0.01  # share of all steps
LONGEST_SCALING = 100  # steps in a row that float16's loss scaling may leave out
REMEDY = "lower optimizer.lr, set optimizer.clip, or look at these images; the last good checkpoint stays"


def check(position: Position, report: StepReport, *, skip: bool, total: int) -> None:
    """Look at the step that was just counted.

    Args:
        position: moved past the step.
        report: of the step.
        skip: whether steps that are not finite may be left out at all.
        total: steps of the whole training.

    Raises:
        NumericError: the step, or the number of such steps, ends the training.
    """
    if position.scaled_in_a_row > LONGEST_SCALING:
        raise NumericError(f"{report}: {LONGEST_SCALING} steps in a row overflow float16; take bf16")
    if report.outcome != "skipped":
        return
    if not skip:
        raise NumericError(f"{report}: not finite; {REMEDY}, or set on_nan=skip")
    if position.in_a_row > MOST_SKIPPED_IN_A_ROW:
        raise NumericError(f"{report}: {MOST_SKIPPED_IN_A_ROW} steps in a row skipped; {REMEDY}")
    if position.skipped_ever > max(1, int(MOST_SKIPPED * total)):
        raise NumericError(f"{report}: more than {MOST_SKIPPED:.0%} of all steps skipped; {REMEDY}")
