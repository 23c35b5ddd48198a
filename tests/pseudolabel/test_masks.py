"""Masks: exact indices in and out, VOC colours, everything else refused with a hint."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from pseudolabel import masks
from pseudolabel.errors import DataError
from pseudolabel.records import LabelSpace

Mask = NDArray[np.uint8]
VOC = LabelSpace(("background", *(f"class {n}" for n in range(1, 21))))
SCENE = np.kron(np.array([[0, 3, 15], [20, 255, 1]], np.uint8), np.ones((6, 7), np.uint8))


def chunks(data: bytes) -> dict[bytes, bytes]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    by_type, place = {}, 8
    while place < len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        by_type[data[place + 4 : place + 8]] = data[place + 8 : place + 8 + length]
        place += 12 + length
    return by_type


def test_the_palette_is_vocs() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 15: (192, 128, 128),
             20: (0, 64, 128), 255: (224, 224, 192)}  # fmt: skip
    for index, expected in known.items():
        assert tuple(masks.PALETTE[index].tolist()) == expected
    for index in range(256):  # the development kit's own loop
        red = green = blue = 0
        rest = index
        for bit in range(8):
            red |= (rest & 1) << (7 - bit)
            green |= (rest >> 1 & 1) << (7 - bit)
            blue |= (rest >> 2 & 1) << (7 - bit)
            rest >>= 3
        assert tuple(masks.PALETTE[index].tolist()) == (red, green, blue)
    assert masks.PALETTE.dtype == np.uint8
    assert len({tuple(row) for row in masks.PALETTE.tolist()}) == 256


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 70))), st.integers(0, 9))
def test_indices_come_back_from_an_indexed_png_of_eight_bits(mask: Mask, level: int) -> None:
    data = masks.encode_mask(mask, level)
    assert masks.encode_mask(mask.copy(order="F"), level) == data
    by_type = chunks(data)
    width, height, depth, colour_type = struct.unpack(">IIBB", by_type[b"IHDR"][:10])
    assert (height, width) == mask.shape
    assert (depth, colour_type) == (8, 3)
    assert by_type[b"PLTE"] == masks.PALETTE.tobytes()
    assert set(by_type) == {b"IHDR", b"PLTE", b"IDAT", b"IEND"}, "no time stamp, no transparency"
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "P"
        assert (np.array(image) == mask).all()
        assert (np.array(image.convert("RGB")) == masks.colour(mask)).all()
    grey = masks.encode_grey(mask, level)
    assert chunks(grey)[b"IHDR"][8:10] == b"\x08\x00"
    with Image.open(io.BytesIO(grey)) as image:
        assert (np.array(image.convert("L")) == mask).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (33, 31)])
def test_masks_of_the_smallest_and_oddest_sizes_come_back(size: tuple[int, int], tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    masks.write_mask(tmp_path / "deep" / "x.png", mask)
    stored = masks.read_mask(tmp_path / "deep" / "x.png")
    assert stored.flags.writeable
    assert (stored == mask).all()


def test_what_is_no_mask_is_not_written() -> None:
    for wrong in (SCENE.astype(np.int64), SCENE[None], SCENE[:0], SCENE > 1):
        for encode in (masks.encode_mask, masks.encode_grey):
            with pytest.raises(ValueError, match=r"a mask is \(H, W\) uint8"):
                encode(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_any_depth_are_read(bits: int, tmp_path: Path) -> None:
    mask = SCENE & np.uint8(2**bits - 1)
    image = Image.fromarray(mask)
    image.putpalette(masks.PALETTE[: 2**bits].tobytes())
    image.save(tmp_path / "x.png", bits=bits)
    assert (tmp_path / "x.png").read_bytes()[24] == bits
    assert (masks.read_mask(tmp_path / "x.png") == mask).all()


def test_eight_bit_grey_is_read(tmp_path: Path) -> None:
    Image.fromarray(SCENE).save(tmp_path / "x.png")
    assert (masks.read_mask(tmp_path / "x.png") == SCENE).all()


def four_bit_grey() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\x12")) + chunk(b"IEND", b"")


def saved(pixels: NDArray[np.generic] | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


COLOURS = masks.colour(SCENE)
PALETTE_HINT = "looks like RGB colours of the VOC palette: `seg check --fix-from-palette`"
EXIF = Image.Exif()
EXIF[0x0112] = 6
REFUSED = {
    "rgb": (saved(COLOURS), f"mask is RGB; {PALETTE_HINT}"),
    "rgba": (saved(np.dstack([COLOURS, SCENE * 0 + 255])), f"mask is RGB with alpha; {PALETTE_HINT}"),
    "other colours": (saved(COLOURS + 1), "mask is RGB; save the class ids as an 8-bit indexed or grey PNG"),
    "three equal channels": (
        saved(np.dstack([SCENE] * 3)),
        "mask is RGB; its three channels are equal: save one of them as 8-bit grey",
    ),
    "grey and alpha": (
        saved(Image.fromarray(SCENE).convert("LA")),
        "mask is grey with alpha; save the class ids as an 8-bit indexed or grey PNG",
    ),
    "one bit": (
        saved(SCENE > 3),
        "mask is 1-bit grey; 0/255: did you mean classes 0/1? save the ids as 8-bit values 0 and 1",
    ),
    "sixteen bits": (
        saved(SCENE.astype(np.uint16)),
        "mask is 16-bit grey; its values fit 8 bits: save them as 8-bit grey",
    ),
    "large ids": (
        saved(SCENE.astype(np.uint16) * 100),
        "mask is 16-bit grey; save the class ids as an 8-bit indexed or grey PNG",
    ),
    "four bits": (four_bit_grey(), "mask is 4-bit grey; its values fit 8 bits: save them as 8-bit grey"),
    "jpeg": (
        saved(SCENE, "JPEG"),
        "mask is a JPEG: its ids are lost to compression; masks are 8-bit indexed or grey PNGs",
    ),
    "bmp": (saved(SCENE, "BMP"), "mask is a BMP; masks are 8-bit indexed or grey PNGs"),
    "turned": (
        saved(SCENE, exif=EXIF),
        "mask asks to be turned (EXIF); save the mask as the image is shown",
    ),
    "transparent": (saved(SCENE, transparency=3), "mask is grey with a transparent value; save plain ids"),
    "empty": (b"", "is empty (0 bytes); copy it again"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_indices_is_refused_with_a_hint(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    data, text = REFUSED[name]
    path.write_bytes(data)
    with pytest.raises(DataError) as raised:
        masks.read_mask(path)
    assert str(raised.value) == f"{path}: {text}"


def test_a_missing_or_truncated_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        masks.read_mask(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(masks.encode_mask(SCENE)[:-30])
    with pytest.raises(DataError, match="is damaged"):
        masks.read_mask(tmp_path / "x.png")


def test_no_cut_or_flip_changes_a_mask_silently_but_where_no_checksum_covers_it(tmp_path: Path) -> None:
    data = masks.encode_mask(SCENE)
    path = tmp_path / "x.png"
    path.write_bytes(data)
    draw = np.random.default_rng(0)
    refused = 0
    with open(path, "r+b") as file:
        for place in range(len(data)):
            flipped = bytearray(data)
            flipped[place] ^= 1 << int(draw.integers(8))
            for mutant in (data[:place], bytes(flipped)):
                file.seek(0)
                file.write(mutant)
                file.truncate()
                file.flush()
                try:
                    stored = masks.read_mask(path)
                except DataError:
                    refused += 1
                else:
                    assert (stored == SCENE).all() or len(mutant) == len(data)
    assert refused > len(data)


def test_a_mask_above_the_limit_is_refused(tmp_path: Path) -> None:
    masks.write_mask(tmp_path / "x.png", SCENE)
    assert masks.read_mask(tmp_path / "x.png", limit=SCENE.size).shape == SCENE.shape
    with pytest.raises(DataError, match="above the limit"):
        masks.read_mask(tmp_path / "x.png", limit=SCENE.size - 1)


def test_values_outside_of_the_classes_are_named_with_their_pixels() -> None:
    masks.check_values(SCENE, VOC, Path("x.png"))
    masks.check_values(SCENE * 0, VOC, Path("x.png"))
    masks.check_values(SCENE * 0 + 255, VOC, Path("x.png"))
    with pytest.raises(DataError) as raised:
        masks.check_values(SCENE, LabelSpace(VOC.names[:15]), Path("x.png"))
    assert str(raised.value) == (
        "x.png: mask holds 15 (42 pixels), 20 (42 pixels); classes are 0 to 14, and 255 means ignore: "
        "check the class list and how the mask was saved"
    )
    ramp = np.arange(256, dtype=np.uint8)[None]
    with pytest.raises(DataError, match=r"holds 21 \(1 pixels\), .*, 30 \(1 pixels\) and 224 more; classes"):
        masks.check_values(ramp, VOC, Path("x.png"))


def test_foreign_values_are_refused_with_a_hint_at_their_cause(tmp_path: Path) -> None:
    luma = np.array(Image.fromarray(COLOURS).convert("L"))
    with pytest.raises(DataError, match="looks like a palette mask that was read as grey; save its indices"):
        masks.check_values(luma, VOC, Path("x.png"))
    with pytest.raises(DataError, match="ids may be shifted by one"):
        masks.check_values(np.array([[0, 1, 21]], np.uint8), VOC, Path("x.png"))


def test_zero_and_255_alone_look_binary_but_a_border_does_not() -> None:
    thing = np.zeros((60, 60), np.uint8)
    thing[20:40, 20:40] = 255
    border = thing.copy()
    border[25:35, 25:35] = 0
    assert masks.looks_binary(thing)
    assert not masks.looks_binary(border)
    assert not masks.looks_binary(thing * 0)
    assert not masks.looks_binary(thing * 0 + 255)
    assert not masks.looks_binary(np.where(border > 0, thing, 3).astype(np.uint8))
    assert masks.looks_binary(np.array([[0, 255, 255]], np.uint8))


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    masks.check_size((3, 4), (3, 4), Path("x.png"))
    with pytest.raises(
        DataError, match=r"x\.png: mask is 4 x 3, its image 3 x 4; save the mask as the image is"
    ):
        masks.check_size((4, 3), (3, 4), Path("x.png"))


def test_colours_are_mapped_back_only_where_all_are_known(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(saved(COLOURS))
    assert (masks.read_colours(path) == SCENE).all()
    path.write_bytes(saved(np.dstack([COLOURS, SCENE * 0 + 255])))
    assert (masks.read_colours(path) == SCENE).all()
    wrong = COLOURS.copy()
    wrong[2, 5, 1] += 1
    path.write_bytes(saved(wrong))
    with pytest.raises(DataError, match=r"colour \(0, 1, 0\) at row 2, column 5 is not in the VOC palette"):
        masks.read_colours(path)
    path.write_bytes(saved(np.dstack([COLOURS, SCENE])))
    with pytest.raises(DataError, match="is not in the VOC palette"):
        masks.read_colours(path)
    masks.write_mask(path, SCENE)
    with pytest.raises(DataError, match="is P, not RGB colours"):
        masks.read_colours(path)
    path.write_bytes(saved(COLOURS, "JPEG"))
    with pytest.raises(DataError, match="wanted is PNG, BMP, TIFF, WEBP"):
        masks.read_colours(path)
