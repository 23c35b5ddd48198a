"""The names of the files in a run folder; they are spelled here and nowhere else.

    RUN/fingerprint.json          all that decides the bytes
    RUN/recipe.yaml               the resolved recipe
    RUN/classes.txt               a class name a line, background first: line number - 1 = id
    RUN/manifest.jsonl            a line an image that is done
    RUN/problems.jsonl            a line a problem
    RUN/summary.json              what the last call did, and on what machine
    RUN/masks/<id>.png            class ids
    RUN/maps/<id>.safetensors     raw maps, on request
    RUN/overlays/<id>.png         masks laid over the images, on request
    RUN/evaluation.json, RUN/sweep.json, RUN/sweep.png      of `pl evaluate` and `pl sweep`

While a process works in the folder there are also `.lock` and `.journal.jsonl`. An id may name folders:
`zoo/007` gives `masks/zoo/007.png`.
"""

from __future__ import annotations

from pseudolabel.errors import DataError

FINGERPRINT = "fingerprint.json"
RECIPE = "recipe.yaml"
CLASSES = "classes.txt"
MANIFEST = "manifest.jsonl"
PROBLEMS = "problems.jsonl"
SUMMARY = "summary.json"
EVALUATION = "evaluation.json"
SWEEP, SWEEP_CURVES = "sweep.json", "sweep.png"
MASKS, MAPS, OVERLAYS = "masks", "maps", "overlays"
JOURNAL, LOCK = ".journal.jsonl", ".lock"


def mask_file(item: str) -> str:
    """Where the mask of an image stands in the folder, with `/` as in the manifest.

    Raises:
        DataError: the id is absolute, climbs or is empty, so that it would name a file elsewhere.
    """
    return _file(MASKS, item, ".png")


def maps_file(item: str) -> str:
    """Where the stored maps of an image stand; see `mask_file`."""
    return _file(MAPS, item, ".safetensors")


def overlay_file(item: str) -> str:
    """Where the overlay of an image stands; see `mask_file`."""
    return _file(OVERLAYS, item, ".png")


def _file(folder: str, item: str, suffix: str) -> str:
    if not item or "\0" in item or any(part in ("", ".", "..") for part in item.split("/")):
        raise DataError(f"id {item!r} makes no file name inside {folder}/; rename the image")
    return f"{folder}/{item}{suffix}"
