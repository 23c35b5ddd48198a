"""Parts of a page of results: numbers, intervals and tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def commands(name: str, result: Mapping[str, Any]) -> str:
    """Both command lines of an experiment as a block of code."""
    return f"```\n{result['command']}\npython -m scripts.experiments.{name}.report\n```\n"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in %, `-` where it is undefined."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def between(bounds: Sequence[float | None], digits: int = 1, sign: bool = False) -> str:
    """An interval of shares in %, `-` where it is undefined."""
    if None in bounds:
        return "-"
    return " to ".join(f"{100 * float(bound or 0.0):{'+' if sign else ''}.{digits}f}" for bound in bounds)


def points(difference: Mapping[str, Any], digits: int = 1) -> str:
    """A difference in points with its interval, `-` where it is undefined; keys `value` and `interval`."""
    if difference["value"] is None:
        return "-"
    interval = between(difference["interval"], digits, sign=True)
    return f"{100 * float(difference['value']):+.{digits}f} ({interval})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
