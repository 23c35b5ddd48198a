"""Faults on request, for tests: fail or leave the process at the n-th operation of a kind.

The environment variable PSEUDOLABEL_FAULTS holds entries `kind:n:what`, joined by commas. Kinds are
`write` (a step of the one writer) and `decode` (an image or mask opened); n counts from 1 in each process;
what is the name of an errno (`ENOSPC`), `exit` (leave at once, as a kill does), `kill` or `memory`.
"""

from __future__ import annotations

import errno
import os
import signal

VARIABLE = "PSEUDOLABEL_FAULTS"
LEFT = 86  # exit status of `exit`, so that a test can tell it from every other end

_plan = ""
_counts: dict[str, int] = {}


def trip(kind: str, path: object = None) -> None:
    """Count one operation, and fail here if the plan says so.

    Args:
        kind: `write` or `decode`.
        path: file named by the error.

    Raises:
        OSError, MemoryError: as planned.
    """
    global _plan
    plan = os.environ.get(VARIABLE, "")
    if plan != _plan:
        _plan = plan
        _counts.clear()
    if not plan:
        return
    _counts[kind] = _counts.get(kind, 0) + 1
    for entry in plan.split(","):
        wanted, number, what = entry.split(":")
        if wanted == kind and int(number) == _counts[kind]:
            _fail(what, path)


def armed() -> bool:
    """Whether there is a plan."""
    return VARIABLE in os.environ


def count(kind: str) -> int:
    """Operations of a kind since the plan was last changed; 0 without a plan."""
    return _counts.get(kind, 0)


def _fail(what: str, path: object) -> None:
    if what == "exit":
        os._exit(LEFT)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "memory":
        raise MemoryError("planned")
    number = getattr(errno, what)
    raise OSError(number, os.strerror(number), None if path is None else str(path))
