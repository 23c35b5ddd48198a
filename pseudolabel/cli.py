"""`pl`: parses the command line, calls a command and prints its result.

The commands are functions of the package with the same names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pseudolabel import console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Make pseudo-masks from image-level labels: train a classifier, map its classes, refine the maps.",
)

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run that is written.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Overrides one key of the recipe, for instance background.threshold=0.2.",
        metavar="KEY=VALUE",
    ),
]  # fmt: skip
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document on standard output.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Device = Annotated[str, typer.Option(help="Device that computes: auto, cpu, cuda or cuda:n.")]
OnBad = Annotated[
    Literal["skip", "stop"],
    typer.Option(
        help="What to do about an image that cannot be read: skip it and end with exit code 1, or stop."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0, help="Number of threads or processes beside the model. The result does not depend on it."
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Number of images from the start of the list that are worked on.")
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
AverageOver = Annotated[
    str | None, typer.Option(help="Classes that the means are taken over, as names separated by commas.")
]  # fmt: skip
Reference = Annotated[
    Path | None,
    typer.Option(
        help="File of `pl reference`. It separates the discriminative region (DR) of an object "
        "from the rest (NDR).",
    ),
]  # fmt: skip
OtherClassifier = Annotated[
    bool,
    typer.Option(
        "--other-classifier", help="Accept reference maps that another classifier than the run's has made."
    ),
]


@app.command()
def train(
    recipe: Path, out: Out, set_: Set = None, device: Device = "auto", workers: Workers = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of images from the start of each list that are used.")
    ] = None,
    on_bad: Annotated[
        Literal["stop", "skip"],
        typer.Option(
            help="What to do about an image that cannot be read: stop, or skip it and end with exit code 1."
        ),
    ] = "stop",
    overwrite: Overwrite = False, new: New = False, wait: Wait = False,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Train an image classifier on image-level labels."""

    def work() -> Any:
        from pseudolabel import train

        options = _given(workers=workers)
        return train(recipe, out, overrides=set_ or (), device=device, limit=limit, on_bad=on_bad,
                     overwrite=overwrite, new=new, wait=wait, quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "evaluation")


@app.command()
def generate(
    recipe: Path, out: Out, set_: Set = None, device: Device = "auto", workers: Workers = None,
    limit: Limit = None,
    on_bad: OnBad = "skip",
    overwrite: Overwrite = False, new: New = False, wait: Wait = False,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Make pseudo-masks: the maps of a classifier, refined, with a background."""

    def work() -> Any:
        from pseudolabel import generate

        options = _given(workers=workers)
        return generate(recipe, out, overrides=set_ or (), device=device, limit=limit, on_bad=on_bad,
                        overwrite=overwrite, new=new, wait=wait, quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "summary")


@app.command()
def preview(
    recipe: Path,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the preview. An older preview in it is replaced.")
    ],
    count: Annotated[
        int, typer.Option(min=1, help="Number of images, spread over the list and its classes.")
    ] = 8,
    ids: Annotated[
        str | None, typer.Option(help="Images to show instead, as ids separated by commas.")
    ] = None,
    set_: Set = None, device: Device = "auto",
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Show on one sheet what a recipe does to a few images: maps, masks, mistakes and time."""

    def work() -> Any:
        from pseudolabel import preview

        return preview(recipe, out, count=count, ids=_names(ids), overrides=set_ or (), device=device,
                       quiet=quiet)  # fmt: skip

    _run(work, json, debug, "preview")


@app.command()
def reference(
    recipe: Path,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File that is written, for instance reference.safetensors.")
    ],
    set_: Set = None, device: Device = "auto",
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Store the single-scale class activation maps that define the discriminative regions."""

    def work() -> Any:
        from pseudolabel import reference

        return reference(recipe, out, overrides=set_ or (), device=device, quiet=quiet)

    _run(work, json, debug, "reference")


@app.command()
def evaluate(
    run: Annotated[Path | None, typer.Argument(help="Run of `pl generate` that is scored.")] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks that are scored instead of a run.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Folder of ground-truth masks. It is needed with --masks.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="File with one class name per line, the background first. It is needed with --masks.",
        ),
    ] = None,
    listing: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="File with one image id per line. Only these images are scored.",
        ),
    ] = None,
    limit: Limit = None, reference: Reference = None, other_classifier: OtherClassifier = False,
    average_over: AverageOver = None, set_: Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to which the evaluation is written.")
    ] = None,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Score masks against the ground truth: mIoU, DR-recall, NDR-recall and FG-precision."""

    def work() -> Any:
        from pseudolabel import evaluate

        return evaluate(run, masks=masks, truth=truth, classes=classes, listing=listing, limit=limit,
                        reference=reference, other_classifier=other_classifier,
                        average_over=_names(average_over), overrides=set_ or (), out=out,
                        quiet=quiet)  # fmt: skip

    _run(work, json, debug, "evaluation")


@app.command()
def sweep(
    run: Annotated[Path, typer.Argument(help="Run of `pl generate` that has stored its maps (output.maps).")],
    thresholds: Annotated[
        str | None,
        typer.Option(
            help="Thresholds as first:last:step, for instance 0.02:0.6:0.02, or separated by commas.",
        ),
    ] = None,
    reference: Reference = None, other_classifier: OtherClassifier = False,
    average_over: AverageOver = None,
    pick_on: Annotated[list[str] | None, typer.Option(
        help="Where a threshold is picked that is then scored on other images: a number of images, `free` "
        "(rules that need no ground truth), a split, or another run. It may be given several times.")] = None,
    set_: Set = None, limit: Limit = None, workers: Workers = None,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Score every threshold in one pass over the stored maps of a run."""

    def work() -> Any:
        from pseudolabel import sweep

        options = _given(workers=workers)
        return sweep(run, reference=reference, other_classifier=other_classifier,
                     thresholds=_grid(thresholds), average_over=_names(average_over), pick_on=pick_on or (),
                     overrides=set_ or (), limit=limit, quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "sweep")


@app.command()
def refine(
    run: Annotated[Path, typer.Argument(help="Run of `pl generate` that has stored its maps (output.maps).")],
    out: Out, set_: Set = None, limit: Limit = None, workers: Workers = None,
    overwrite: Overwrite = False, new: New = False, wait: Wait = False,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Make masks from the stored maps of a run, with other refiners, background or postprocessors."""

    def work() -> Any:
        from pseudolabel import refine

        options = _given(workers=workers)
        return refine(run, out, overrides=set_ or (), limit=limit, overwrite=overwrite, new=new, wait=wait,
                      quiet=quiet, **options)  # fmt: skip

    _run(work, json, debug, "summary")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run of `pl generate` or `pl refine`.")],
    out: Out,
    to: Annotated[str, typer.Option(help="Exporter that writes the masks.")] = "grey",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Parameter of the exporter, as key=value. `pl methods NAME` lists them.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    overwrite: Overwrite = False, new: New = False, wait: Wait = False,
    quiet: Quiet = False, json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """Write the masks of a run in the format that another trainer reads."""

    def work() -> Any:
        from pseudolabel import export

        return export(run, out, to=to, overrides=set_ or (), overwrite=overwrite, new=new, wait=wait,
                      quiet=quiet)  # fmt: skip

    _run(work, json, debug, "export")


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(help="Component whose parameters and defaults are listed.")
    ] = None,
    json: Json = False, debug: Debug = False,
) -> None:  # fmt: skip
    """List every component with its formula and source, or the parameters of one."""

    def work() -> Any:
        from pseudolabel.commands.methods import methods

        return methods(name)

    _run(work, json, debug, "methods" if name is None else "method")


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
            from pseudolabel.figures.text import FORMS

            console.put(FORMS[form](result))
        return 1 if result.get("failed") else 0

    sys.exit(console.run(command, json, debug))


def _given(**options: Any) -> dict[str, Any]:
    """Only the options that were given, so that each command's own defaults hold."""
    return {name: value for name, value in options.items() if value is not None}


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _grid(text: str | None) -> tuple[float, ...] | None:
    """`first:last:step` or `a,b,c` as thresholds."""
    if text is None:
        return None
    from pseudolabel.errors import UsageError

    try:
        if ":" not in text:
            return tuple(float(part) for part in text.split(","))
        first, last, step = (float(part) for part in text.split(":"))
        count = round((last - first) / step) + 1
        return tuple(round(first + step * index, 10) for index in range(count))
    except (ValueError, ZeroDivisionError):
        raise UsageError(
            f"--thresholds {text}: expected first:last:step or a,b,c, for instance 0.02:0.6:0.02"
        ) from None


def main() -> None:
    """Entry point of `pl`."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # libgomp's threads turn some 300,000 times before they sleep, on a core that worker processes want
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    app()


if __name__ == "__main__":
    main()
