"""`seg`: parses, calls a command, prints. The commands are functions of the package with the same names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pseudolabel import console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Masks to a segmentation network and its mIoU; several ways to masks compared.",
)

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key: schedule.epochs=2", metavar="KEY=VALUE"),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Threads that read images; no byte depends on it.")]
OnBad = Annotated[str, typer.Option(help="An image that cannot be read: stop or skip.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first images of each list.")]
Checkpoint = Annotated[str, typer.Option(help="last, best (by the validation images) or previous.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Move another run in the folder aside.")]
New = Annotated[bool, typer.Option("--new", help="Take the next numbered folder instead.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for another process that writes the folder.")]


@app.command()
def train(
    recipe: Path, out: Out, set_: Set = None, device: Device = "auto", workers: Workers = None,
    limit: Limit = None, on_bad: OnBad = "stop",
    overwrite: Overwrite = False, new: New = False, wait: Wait = False,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Train a network; a stopped run goes on where it was."""

    def work() -> dict[str, Any]:
        from segtrain import train

        options = _given(workers=workers)
        return train(recipe, out, overrides=set_ or (), device=device, limit=limit, on_bad=on_bad,
                     overwrite=overwrite, new=new, wait=wait, quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "training")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run of `seg train`.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where evaluation.json goes.")] = None,
    checkpoint: Checkpoint = "last", set_: Set = None,
    average_over: Annotated[
        str | None, typer.Option(help="Class names, comma separated, that the means are taken over.")
    ] = None,
    device: Device = "auto", workers: Workers = None,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Score a network on its validation images."""

    def work() -> dict[str, Any]:
        from segtrain import evaluate

        names = None if average_over is None else tuple(name.strip() for name in average_over.split(","))
        options = _given(workers=workers)
        return evaluate(run, out=out, checkpoint=checkpoint, overrides=set_ or (), average_over=names,
                        device=device, quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "evaluation")


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run of `seg train`, or a checkpoint file.")],
    images: Annotated[Path, typer.Argument(help="A folder of images, or a file with a path a line.")],
    out: Out, checkpoint: Checkpoint = "last", device: Device = "auto", workers: Workers = None,
    on_bad: OnBad = "skip",
    overwrite: Overwrite = False, new: New = False, wait: Wait = False,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Segment images: palette PNGs of exactly their size."""

    def work() -> dict[str, Any]:
        from segtrain import predict

        options = _given(workers=workers)
        return predict(run, images, out, checkpoint=checkpoint, device=device, on_bad=on_bad,
                       overwrite=overwrite, new=new, wait=wait, quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "prediction")


@app.command()
def check(
    source: Annotated[Path, typer.Argument(help="A recipe of `seg train`, or a folder of masks.")],
    images: Annotated[Path | None, typer.Option(help="For a folder: the images,")] = None,
    classes: Annotated[Path | None, typer.Option(help="and a name a line, background first.")] = None,
    fix_from_palette: Annotated[
        Path | None, typer.Option(help="New folder for indexed copies of masks saved as VOC colours.")
    ] = None,
    set_: Set = None, quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Look at every mask and say all that is wrong."""

    def work() -> dict[str, Any]:
        from segtrain import check

        return check(source, images=images, classes=classes, fix_from_palette=fix_from_palette,
                     overrides=set_ or (), quiet=quiet)  # fmt: skip

    _run(work, json, debug, "inspection")


@app.command()
def compare(
    recipe: Path, out: Out, set_: Set = None, device: Device = "auto", workers: Workers = None,
    overwrite: Overwrite = False, new: New = False, wait: Wait = False,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Several ways to masks: make, score, train, score."""

    def work() -> dict[str, Any]:
        from segtrain import compare

        options = _given(workers=workers)
        return compare(recipe, out, overrides=set_ or (), device=device, overwrite=overwrite, new=new,
                       wait=wait, quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "comparison")


def _run(work: Callable[[], dict[str, Any]], json: bool, debug: bool, form: str) -> None:
    """Call a command, print its result, leave with its exit code: 1 where some items could not be done."""

    def command() -> int:
        result = work()
        if not console.prints_results():
            pass
        elif json:
            console.show(result)
        else:
            from segtrain.text import FORMS

            console.put(FORMS[form](result))
        return 1 if result.get("failed") else 0

    sys.exit(console.run(command, json, debug))


def _given(**options: Any) -> dict[str, Any]:
    """Only the options that were given, so that each command's own defaults hold."""
    return {name: value for name, value in options.items() if value is not None}


def main() -> None:
    """Entry point of `seg`."""
    app()


if __name__ == "__main__":
    main()
