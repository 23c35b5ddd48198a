"""`pl evaluate`: scores of a folder of masks against ground truth.

Every listed image is counted exactly once; one that lacks its mask is refused, never left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pseudolabel import console
from pseudolabel import masks as mask_files
from pseudolabel.errors import DataError, UsageError
from pseudolabel.metrics.bootstrap import miou_interval
from pseudolabel.metrics.confusion import (
    READINGS,
    Counts,
    Reading,
    averaged_ids,
    defined,
    figures,
)
from pseudolabel.metrics.regions import part_matrices, region_matrices
from pseudolabel.records import ImageRecord
from pseudolabel.runs import disk
from pseudolabel.scoring.truth import (
    NAMED,
    Reference,
    Truth,
    check_classes,
    listed,
    of_folder,
    of_reader,
    png_ids,
    run_recipe,
    size,
)

if TYPE_CHECKING:
    from pseudolabel.recipes.steps import ReaderStep

DEFAULT: Reading = "background"
BLOCK = 256  # images read at once; bounds the memory
SPREAD = 256 << 20  # bytes of per-image matrices up to which the interval of mIoU is computed
LEVEL, DRAWS = 0.95, 1000  # of that interval


def evaluate(
    run: Path | str | None = None,
    *,
    masks: Path | str | None = None,
    truth: Path | str | None = None,
    classes: Path | str | None = None,
    listing: Path | str | None = None,
    data: ReaderStep | None = None,
    reference: Path | str | None = None,
    average_over: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    out: Path | str | None = None,
    workers: int = 2,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score masks and write `evaluation.json`.

    Args:
        run: a run of `pl generate`; its recipe names the data, its `masks/` are scored.
        masks: a folder of `<id>.png` in place of a run.
        truth: folder of the true masks, where no run or `data` names them.
        classes: with `truth`: a name a line, line number - 1 = id, background first.
        listing: with `truth`: text file of the ids to score; without it every true mask counts, and a
            mask without a true one is refused.
        data: a reader in place of the run's own.
        reference: reference maps of `pl reference`; without them DR- and NDR-recall are undefined.
        average_over: class names that means are taken over, background too if it is to count; None for all.
        overrides: `key=value` on the run's recipe, for instance `data.root=...`.
        limit: score the first so many images of the list only.
        out: the file, or the folder for `evaluation.json`; None writes into the run, or beside the masks.
        workers: threads that read masks.
        quiet: no progress, no hint.

    Returns:
        What was written: the figures in the default reading, all readings under `readings`, undefined
        figures None.

    Raises:
        DataError: a mask is missing, of another size, or holds other values; no ground truth.
        UsageError: the arguments do not fit together, or a class is unknown.
    """
    where, judged, labels = _what(run, masks, truth, classes, listing, data, overrides, limit)
    chosen = averaged_ids(judged.space, average_over)
    maps = Reference(Path(reference)) if reference is not None else None
    if maps is not None:
        maps.require(record.id for record in judged.records)
    counts = _count(judged, where, maps, workers, quiet)
    readings: dict[str, Any] = {}
    for reading in READINGS:
        found = figures(counts.whole, reading, dr=counts.dr, ndr=counts.ndr, average_over=chosen)
        readings[reading] = {**found.plain(judged.space), "parts": _parts(counts, reading, chosen)}
    result = {
        "images": len(judged.records),
        **readings[DEFAULT],
        "readings": readings,
        "average_over": None if chosen is None else [judged.space.names[c] for c in chosen],
        "reference": None if maps is None else maps.plain(),
        "miou_interval": _interval(counts.each, chosen),
        "labels": labels,
        "reader": judged.reader,
        "split": judged.split,
    }
    path = _destination(out, run, where)
    disk.write_json(path, result)
    if maps is None and not quiet:
        console.say(_hint(run))
    return result


class _Sums:
    """Matrices summed over images; None where there is nothing to count them by."""

    def __init__(self, names: int, images: int, regions: bool, parts: bool) -> None:
        self.whole = np.zeros((names, names + 1), np.int64)
        self.dr = np.zeros_like(self.whole) if regions else None
        self.ndr = np.zeros_like(self.whole) if regions else None
        self.part = np.zeros_like(self.whole) if parts else None
        self.body = np.zeros_like(self.whole) if parts else None
        small = self.whole.nbytes * images <= SPREAD
        self.each: list[Counts] | None = [] if small else None

    def add(self, one: Mapping[str, Counts]) -> None:
        for name, matrix in one.items():
            total = getattr(self, name)
            total += matrix
        if self.each is not None:
            self.each.append(one["whole"])


def _what(
    run: Path | str | None,
    masks: Path | str | None,
    truth: Path | str | None,
    classes: Path | str | None,
    listing: Path | str | None,
    data: ReaderStep | None,
    overrides: Sequence[str],
    limit: int | None,
) -> tuple[Path, Truth, str | None]:
    """Folder of the masks, what they are scored against, and where their labels came from."""
    if (run is None) == (masks is None):
        raise UsageError("evaluate: give a run, or --masks DIR --truth DIR --classes FILE")
    if limit is not None and limit < 1:
        raise UsageError(f"evaluate: limit {limit} leaves no image")
    labels = None
    if run is not None:
        folder = Path(run)
        where = folder / "masks"
        if truth is None:
            recipe = run_recipe(folder, overrides)
            data, labels = data or recipe.data, recipe.labels.source
    else:
        assert masks is not None
        where = Path(masks)
    if truth is not None:
        if classes is None:
            raise UsageError("evaluate: --truth needs --classes FILE, a class name a line, background first")
        judged = of_folder(Path(truth), Path(classes), None if listing is None else Path(listing), limit)
        if listing is None and limit is None:
            known = {record.id for record in judged.records}
            extra = [one for one in png_ids(where) if one not in known]
            if extra:
                raise DataError(
                    f"{where}: {len(extra)} masks have no ground truth in {truth}: {listed(extra)}; "
                    "name the images to score with --list FILE"
                )
    elif data is not None:
        judged = of_reader(data, limit)
    else:
        raise UsageError("evaluate: --masks needs --truth DIR and --classes FILE")
    if run is not None:
        check_classes(Path(run), judged.space)
    return where, judged, labels


def _count(judged: Truth, where: Path, maps: Reference | None, workers: int, quiet: bool) -> _Sums:
    """Matrices over all images, each counted once.

    Raises:
        DataError: images that cannot be counted; all of them are counted in the message.
    """
    records = judged.records
    missing = [record.id for record in records if not (where / f"{record.id}.png").is_file()]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(records)} images have no mask: {listed(missing)}; a score "
            "covers every listed image: finish the run, or score fewer with --limit"
        )
    sums = _Sums(len(judged.space.names), len(records), maps is not None, judged.parts is not None)
    faults: list[str] = []
    seen: set[str] = set()
    with (
        ThreadPoolExecutor(max(1, workers)) as pool,
        console.progress(len(records), "evaluate", quiet) as bar,
    ):
        for block in _blocks(records):
            for record, one in zip(
                block, pool.map(lambda r: _one(judged, where, maps, r), block), strict=True
            ):
                bar.advance()
                if isinstance(one, str):
                    faults.append(one)
                    continue
                if record.id in seen:
                    faults.append(f"{record.id}: stands twice in the list")
                    continue
                seen.add(record.id)
                sums.add(one)
    if faults:
        raise DataError(
            f"{len(faults)} of {len(records)} images cannot be scored: "
            + "; ".join(faults[:NAMED])
            + (f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else "")
        )
    return sums


def _one(judged: Truth, where: Path, maps: Reference | None, record: ImageRecord) -> dict[str, Counts] | str:
    """Matrices of one image, or what is wrong with it."""
    try:
        return _matrices(judged, where / f"{record.id}.png", maps, record)
    except DataError as fault:
        return str(fault)


def _matrices(judged: Truth, path: Path, maps: Reference | None, record: ImageRecord) -> dict[str, Counts]:
    assert record.mask is not None
    names = len(judged.space.names)
    truth, predicted = judged.mask(record), mask_files.read_mask(path)
    if predicted.shape != truth.shape:
        raise DataError(f"{path}: mask is {size(predicted.shape)}, its truth {size(truth.shape)}")
    region = np.zeros(truth.shape, np.bool_) if maps is None else maps.region(record.id, truth)
    try:
        whole, dr, ndr = (m[0] for m in region_matrices(truth, predicted[None], region, names))
    except ValueError:
        mask_files.check_values(predicted, judged.space, path)
        mask_files.check_values(truth, judged.space, record.mask)
        raise
    counts = {"whole": whole} if maps is None else {"whole": whole, "dr": dr, "ndr": ndr}
    parts = judged.part(record, truth.shape)
    if parts is not None:
        part, body = (m[0] for m in part_matrices(truth, predicted[None], parts, names))
        counts |= {"part": part, "body": body}
    return counts


def _blocks(records: Sequence[ImageRecord]) -> Iterator[Sequence[ImageRecord]]:
    for start in range(0, len(records), BLOCK):
        yield records[start : start + BLOCK]


def _parts(counts: _Sums, reading: Reading, chosen: Sequence[int] | None) -> dict[str, Any] | None:
    """Recall on the planted parts and bodies, mean over classes and pooled; None without part masks."""
    if counts.part is None or counts.body is None:
        return None
    found = figures(counts.whole, reading, dr=counts.part, ndr=counts.body, average_over=chosen)
    return {
        "part_recall": defined(found.dr_recall),
        "body_recall": defined(found.ndr_recall),
        "pooled": {
            "part_recall": defined(found.pooled["dr_recall"]),
            "body_recall": defined(found.pooled["ndr_recall"]),
        },
        "pixels": {"part": int(counts.part.sum()), "body": int(counts.body.sum())},
    }


def _interval(each: list[Counts] | None, chosen: Sequence[int] | None) -> dict[str, Any] | None:
    """Spread of the default reading's mIoU over images; None where the set is too large to keep."""
    if each is None:
        return None
    low, high = miou_interval(np.stack(each), draws=DRAWS, level=LEVEL, average_over=chosen)
    return {"low": defined(low), "high": defined(high), "level": LEVEL, "draws": DRAWS}


def _destination(out: Path | str | None, run: Path | str | None, where: Path) -> Path:
    if out is None:
        return (where if run is None else Path(run)) / "evaluation.json"
    return Path(out) if Path(out).suffix == ".json" else Path(out) / "evaluation.json"


def _hint(run: Path | str | None) -> str:
    recipe = f"{run}/recipe.yaml" if run is not None else "RECIPE"
    return (
        "DR- and NDR-recall are undefined without reference maps: "
        f"`pl reference {recipe} -o reference.safetensors`, then --reference reference.safetensors"
    )
