"""`seg`: parses the command line, calls a command and prints its result.

The commands are functions of the package with the same names.
"""

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
    help="Train a segmentation network on pseudo-masks, score it, and compare several ways to make masks.",
)

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run that is written.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Overrides one key of the recipe, for instance schedule.epochs=2.", metavar="KEY=VALUE"
    ),
]  # fmt: skip
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document on standard output.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Device = Annotated[str, typer.Option(help="Device that computes: auto, cpu, cuda or cuda:n.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Number of threads that read images. The result does not depend on it.",
    ),
]
OnBad = Annotated[str, typer.Option(help="What to do about an image that cannot be read: stop or skip it.")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Number of images from the start of each list that are used.")
]
Checkpoint = Annotated[
    str,
    typer.Option(
        help="Checkpoint that is used: last, best (highest mIoU on the validation images) or previous.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Move another run that is in the folder aside and start anew.")
]
New = Annotated[
    bool, typer.Option("--new", help="Where the folder holds another run, write to the next numbered folder.")
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait until another process that writes to the folder has ended.")
]


@app.command()
def train(
    recipe: Path, out: Out, set_: Set = None, device: Device = "auto", workers: Workers = None,
    limit: Limit = None, on_bad: OnBad = "stop",
    overwrite: Overwrite = False, new: New = False, wait: Wait = False,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Train a segmentation network. A run that was stopped continues where it was."""

    def work() -> Any:
        from segtrain import train

        options = _given(workers=workers)
        return train(recipe, out, overrides=set_ or (), device=device, limit=limit, on_bad=on_bad,
                     overwrite=overwrite, new=new, wait=wait, quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "training")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run of `seg train`.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to which the evaluation is written.")
    ] = None,
    checkpoint: Checkpoint = "last", set_: Set = None,
    average_over: Annotated[
        str | None, typer.Option(help="Classes that the means are taken over, as names separated by commas.")
    ] = None,
    device: Device = "auto", workers: Workers = None,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Score a segmentation network on its validation images."""

    def work() -> Any:
        from segtrain import evaluate

        names = None if average_over is None else tuple(name.strip() for name in average_over.split(","))
        options = _given(workers=workers)
        return evaluate(run, out=out, checkpoint=checkpoint, overrides=set_ or (), average_over=names,
                        device=device, quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "evaluation")


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run of `seg train`, or a checkpoint file.")],
    images: Annotated[Path, typer.Argument(help="Folder of images, or a file with one path per line.")],
    out: Out, checkpoint: Checkpoint = "last", device: Device = "auto", workers: Workers = None,
    on_bad: OnBad = "skip",
    overwrite: Overwrite = False, new: New = False, wait: Wait = False,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Segment images and write the masks as palette PNGs of the size of the images."""

    def work() -> Any:
        from segtrain import predict

        options = _given(workers=workers)
        return predict(run, images, out, checkpoint=checkpoint, device=device, on_bad=on_bad,
                       overwrite=overwrite, new=new, wait=wait, quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "prediction")


@app.command()
def check(
    source: Annotated[Path, typer.Argument(help="Recipe of `seg train`, or a folder of masks.")],
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the images. It is needed where SOURCE is a folder of masks.",
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="File with one class name per line, the background first. It is needed where SOURCE "
            "is a folder.",
        ),
    ] = None,
    fix_from_palette: Annotated[
        Path | None,
        typer.Option(
            help="New folder for indexed copies of masks that were saved as VOC colours.",
        ),
    ] = None,
    set_: Set = None, quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Check every mask and report everything that is wrong."""

    def work() -> Any:
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
    """Compare several ways to make masks: make them, score them, train a network on each, score it."""

    def work() -> Any:
        from segtrain import compare

        options = _given(workers=workers)
        return compare(recipe, out, overrides=set_ or (), device=device, overwrite=overwrite, new=new,
                       wait=wait, quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "comparison")


def _run(work: Callable[[], Any], json: bool, debug: bool, form: str) -> None:
    """Call a command, print its result and exit; the code is 1 where some items could not be done."""

    def command() -> int:
        returned = work()
        result = returned if isinstance(returned, dict) else returned.as_dict()
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
