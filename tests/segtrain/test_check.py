"""`seg check` lists every fault, `seg train` refuses before it starts, nothing is repaired unasked."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segtrain
from pseudolabel import masks
from pseudolabel.errors import DataError, UsageError
from pseudolabel.training import device

Recipe = Callable[..., dict[str, Any]]


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG")
    return buffer.getvalue()


def swapped_palette(mask: np.ndarray) -> bytes:
    indexed = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
    palette = masks.PALETTE.copy()
    palette[[1, 2]] = palette[[2, 1]]
    indexed.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    indexed.save(buffer, "PNG")
    return buffer.getvalue()


def recoded(mask: np.ndarray, chosen: np.ndarray, value: int) -> bytes:
    return masks.encode_mask(np.where(chosen, value, mask).astype(np.uint8))


def with_alpha(mask: np.ndarray) -> bytes:
    return png(np.dstack([masks.colour(mask), np.full(mask.shape, 255, np.uint8)]))


FAULTS: dict[str, tuple[Callable[[np.ndarray], bytes | None], str, str]] = {
    "missing": (lambda mask: None, "missing", "no mask"),
    "empty": (lambda mask: b"", "empty", ""),
    "rgb": (lambda mask: png(masks.colour(mask)), "rgb", "seg check --fix-from-palette"),
    "alpha": (with_alpha, "alpha", "RGB with alpha"),
    "sixteen": (lambda mask: png(mask.astype(np.uint16)), "sixteen_bit", "16-bit"),
    "jpeg": (jpeg, "jpeg", "JPEG"),
    "size": (lambda mask: masks.encode_mask(mask[:-1]), "size", "mask is"),
    "values": (lambda mask: recoded(mask, mask == 2, 77), "values", "77 ("),
    "binary": (lambda mask: recoded(mask * 0, np.indices(mask.shape)[1] > 5, 255), "binary", "0/1?"),
    "palette": (swapped_palette, "palette", "index 1 (red) has the colour of class 2 (green)"),
    "text": (lambda mask: b"<html>no mask</html>", "unreadable", ""),
}  # fmt: skip


@pytest.fixture
def spoilt(make_voc: Callable[..., Path]) -> Path:
    """Twenty good masks and one for each fault."""
    root = make_voc(count=20 + len(FAULTS), val=1)
    for index, (spoil, _, _) in enumerate(FAULTS.values()):
        file = root / "SegmentationClass" / f"train_{20 + index}.png"
        data = spoil(masks.read_mask(file).astype(np.uint8))
        if data is None:
            file.unlink()
        else:
            file.write_bytes(data)
    (root / "labels.csv").write_text(
        "id,labels\n" + "".join(f"train_{index},red green\n" for index in range(20 + len(FAULTS)))
    )
    return root


def planted(root: Path) -> dict[str, tuple[str, str]]:
    """Code and text to be found, by id."""
    return {f"train_{20 + i}": (code, text) for i, (_, code, text) in enumerate(FAULTS.values())}


def recipe_on(recipe_of: Recipe, root: Path) -> dict[str, Any]:
    recipe = recipe_of(root)
    recipe["data"]["labels"] = None
    recipe["masks"] = str(root / "SegmentationClass")
    return recipe


def write(recipe: dict[str, Any], folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def test_check_lists_exactly_the_planted_faults(spoilt: Path, recipe_of: Recipe, tmp_path: Path) -> None:
    report = segtrain.check(write(recipe_on(recipe_of, spoilt), tmp_path), quiet=True)
    by_id = {fault.id: fault for fault in report.faults}
    wanted = planted(spoilt)
    assert by_id.keys() == wanted.keys()
    assert len(report.faults) == len(wanted)
    for item, (code, text) in wanted.items():
        assert by_id[item].code == code
        assert text in str(by_id[item])
        assert by_id[item].file == f"{item}.png"
        assert by_id[item].remedy
    assert (report.good, report.images, report.failed) == (20, 31, 11)


def test_values_are_named_with_their_pixels(
    make_voc: Callable[..., Path], recipe_of: Recipe, tmp_path: Path
) -> None:
    root = make_voc(count=2)
    file = root / "SegmentationClass" / "train_0.png"
    mask = np.zeros(masks.read_mask(file).shape, np.uint8)
    mask.flat[:12] = np.arange(60, 72)
    mask.flat[12:15] = 60
    masks.write_mask(file, mask)
    (root / "labels.csv").write_text("id,labels\ntrain_0,red\ntrain_1,red\n")
    report = segtrain.check(write(recipe_on(recipe_of, root), tmp_path), quiet=True)
    (fault,) = report.faults
    assert "60 (4 pixels), 61 (1 pixels)" in fault.what
    assert "and 2 more" in fault.what


def test_train_refuses_before_the_device_is_touched(
    spoilt: Path, recipe_of: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "pick", lambda name: pytest.fail("the device was touched"))
    with pytest.raises(DataError, match="11 files of the training data have faults:") as refused:
        segtrain.train(recipe_on(recipe_of, spoilt), tmp_path / "run", quiet=True)
    for item in planted(spoilt):
        assert f"{item}.png: " in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_mask_without_an_image_is_a_fault_and_one_off_the_list_is_not(
    make_voc: Callable[..., Path], recipe_of: Recipe, tmp_path: Path
) -> None:
    root = make_voc(count=3, val=1)
    (root / "labels.csv").write_text("id,labels\n" + "".join(f"train_{i},red\n" for i in range(3)))
    masks.write_mask(root / "SegmentationClass" / "stray.png", np.zeros((4, 4), np.uint8))
    report = segtrain.check(write(recipe_on(recipe_of, root), tmp_path), quiet=True)
    assert [(fault.file, fault.code) for fault in report.faults] == [("stray.png", "no_image")]
    assert report.masks_not_listed == 1  # val_0


def test_all_255_and_background_only_are_legal_and_counted(
    make_voc: Callable[..., Path], recipe_of: Recipe, tmp_path: Path
) -> None:
    root = make_voc(count=3, val=1)
    (root / "labels.csv").write_text("id,labels\n" + "".join(f"train_{i},red\n" for i in range(3)))
    for item, value in (("train_0", 255), ("train_1", 0)):
        file = root / "SegmentationClass" / f"{item}.png"
        masks.write_mask(file, np.full_like(masks.read_mask(file), value))
    report = segtrain.check(write(recipe_on(recipe_of, root), tmp_path), quiet=True)
    assert report.faults == []
    assert (report.all_ignored, report.background_only) == (["train_0"], ["train_1"])
    third = masks.read_mask(root / "SegmentationClass" / "train_2.png")
    assert report.pixels["red"] == int((third == 1).sum())
    assert sum(report.pixels.values()) == 24 * 31 + 40 * 33 + 17 * 48


def test_fix_writes_copies_and_leaves_the_input(spoilt: Path, recipe_of: Recipe, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (spoilt / "SegmentationClass").iterdir()}
    recipe = recipe_on(recipe_of, spoilt)
    names = list(FAULTS)
    out = tmp_path / "fixed"
    report = segtrain.check(write(recipe, tmp_path), fix_from_palette=out, quiet=True)
    coloured = [f"train_{20 + names.index(name)}" for name in ("rgb", "alpha")]
    assert report.fixed == coloured
    assert report.failed == 9
    assert {path: path.read_bytes() for path in (spoilt / "SegmentationClass").iterdir()} == before
    assert len(list(out.iterdir())) == 22
    from tests.segtrain.conftest import SIZES, draw

    for item in coloured:
        number = int(item.removeprefix("train_"))
        np.testing.assert_array_equal(
            masks.read_mask(out / f"{item}.png"), draw(SIZES[number % len(SIZES)], number)[1]
        )
    with pytest.raises(UsageError, match="is not empty; repaired copies go to a new folder"):
        segtrain.check(write(recipe, tmp_path), fix_from_palette=out, quiet=True)


def test_a_folder_is_checked_against_images_and_classes(make_voc: Callable[..., Path]) -> None:
    root = make_voc(count=2, val=0)
    folder = root / "SegmentationClass"
    with pytest.raises(UsageError, match="add --images DIR --classes FILE"):
        segtrain.check(folder, quiet=True)
    report = segtrain.check(folder, images=root / "JPEGImages", classes=root / "classes.txt", quiet=True)
    assert (report.good, report.faults) == (2, [])
    assert list(report.pixels) == ["background", "red", "green", "ignore"]


def test_a_broken_image_stops_or_is_left_out(
    make_voc: Callable[..., Path], recipe_of: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_voc(count=4, val=1)
    image = root / "JPEGImages" / "train_1.png"
    image.write_bytes(image.read_bytes()[:200])
    recipe = recipe_of(root, schedule={"epochs": 1})
    with pytest.raises(DataError, match=r"1 files of the training data have faults:\ntrain_1.png: "):
        segtrain.train(recipe, tmp_path / "run", quiet=True, workers=0)
    summary = segtrain.train(recipe, tmp_path / "run", on_bad="skip", quiet=True, workers=0)
    assert summary.images == 3
    assert "1 of 4 images cannot be read and are left out" in capsys.readouterr().err
