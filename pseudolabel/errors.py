"""What may go wrong, by kind: each kind has one exit code and one name in the JSON.

A message is one line: where, what is wrong, what to do.
"""


class PseudolabelError(Exception):
    """A refusal that a person can act on; shown without a traceback.

    `exit_code` and `kind` are what the command line reports.
    """

    exit_code = 1
    kind = "internal"


class DataError(PseudolabelError, ValueError):
    """Data, a label, a mask or a checkpoint is refused, or some items could not be done (exit 1)."""

    kind = "data"


class MachineError(PseudolabelError):
    """The run cannot go on: disk, permission, device, memory, lock, worker (exit 1)."""

    kind = "environment"


class NumericError(PseudolabelError):
    """A loss, gradient or parameter is not finite (exit 1)."""

    kind = "numeric"


class UsageError(PseudolabelError):
    """Command line, recipe or output folder is refused; nothing was written (exit 2)."""

    exit_code = 2
    kind = "usage"


class Interrupted(PseudolabelError):
    """Stopped by a signal; the same command continues (exit 130 or 143)."""

    kind = "interrupted"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
