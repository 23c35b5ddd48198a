"""Shared by every script that writes results: progress, command line, machine, files of a result."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pseudolabel.runs import disk

START = time.monotonic()
FOLDER = Path("docs/results")
Result = dict[str, Any]
# Options that say where a data set is, and the value that a page shows, the same on every machine
DATA = {
    "--root": "VOC2012",
    "data.root": "VOC2012",
    "--mnist": "mnist_small.npz",
    "--generate": "VOC2012/JPEGImages",
}


def say(text: str) -> None:
    """A line of progress on standard error, with minutes and seconds since the start."""
    seconds = int(time.monotonic() - START)
    print(f"[{seconds // 60:3d}:{seconds % 60:02d}] {text}", file=sys.stderr, flush=True)


def command(module: str, words: Sequence[str]) -> str:
    """The command line of a module in `scripts`, its data sets by their usual names."""
    shown = ["python", "-m", f"scripts.{module}"]
    option = ""
    for word in words:
        key, equals, _ = word.partition("=")
        if option in DATA:
            shown.append(DATA[option])
        else:
            shown.append(f"{key}={DATA[key]}" if equals and key in DATA else word)
        option = word
    return shlex.join(shown)


def machine() -> Result:
    """The machine in words, versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "machine": f"{os.cpu_count()} cores of a server CPU ({platform.machine()}), {gpu}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


class Experiment:
    """An experiment by name: the command lines of its two modules and its files.

    Attributes:
        name: of its folder in `scripts.experiments` and of its files.
        words: of the command line.
    """

    def __init__(self, name: str, words: Sequence[str] | None) -> None:
        self.name = name
        self.words = sys.argv[1:] if words is None else list(words)

    def parser(self, doc: str | None) -> argparse.ArgumentParser:
        """A parser whose help is the module's docstring."""
        module = f"python -m scripts.experiments.{self.name}"
        raw = argparse.RawTextHelpFormatter
        return argparse.ArgumentParser(prog=module, description=doc, formatter_class=raw)

    def options(self, parser: argparse.ArgumentParser, work: str = "") -> argparse.Namespace:
        """Parse the command line of `measure`, with the folder of the result and, where it is named, of what
        is kept between calls."""
        parser.add_argument("-o", "--out", type=Path, default=FOLDER, help="folder of the result")
        if work:
            parser.add_argument("--work", type=Path, default=Path(work), help="folder of what is kept")
        return parser.parse_args(self.words)

    def about(self) -> Result:
        """First entries of a result: command line, machine, versions."""
        return {"command": command(f"experiments.{self.name}.measure", self.words), **machine()}

    def write(self, folder: Path, result: Result) -> None:
        """Write the result."""
        path = folder / f"{self.name}.json"
        folder.mkdir(parents=True, exist_ok=True)
        disk.write_json(path, result)
        say(f"wrote {path}; its page: python -m scripts.experiments.{self.name}.report --results {folder}")

    def report(
        self,
        doc: str | None,
        page: Callable[[Mapping[str, Any]], str],
        figure: Callable[[Mapping[str, Any]], bytes] | None = None,
    ) -> tuple[Result, Path]:
        """Command line of `report`: write the page (.md) and the figure (.png) beside the result.

        Returns:
            The result, its file.
        """
        parser = self.parser(doc)
        parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder of {self.name}.json")
        folder: Path = parser.parse_args(self.words).results
        path = folder / f"{self.name}.json"
        result: Result = disk.read_json(path)
        disk.write_text(path.with_suffix(".md"), page(result))
        if figure is not None:
            disk.write_bytes(path.with_suffix(".png"), figure(result))
        say(f"wrote the page of {path}")
        return result, path
