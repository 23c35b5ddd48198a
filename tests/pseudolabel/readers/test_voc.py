"""The VOC layout: where labels come from, and what is refused."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudolabel.errors import DataError
from pseudolabel.readers import _files
from pseudolabel.readers.voc import Voc, voc
from pseudolabel.records import Dataset
from tests.oracles.readers import image, indexed, regions

PET = "<annotation><object><name>{}</name></object><object><name>dog</name></object></annotation>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images, a and b, with masks, csv, annotations and both kinds of list."""
    for name, mask in (("a", regions(9, 9, 12)), ("b", regions(9, 12, 8, 12))):
        image(tmp_path / "JPEGImages" / f"{name}.jpg", *mask.shape)
        indexed(tmp_path / "SegmentationClass" / f"{name}.png", mask)
        text = PET.format("person" if name == "a" else "dog")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    (tmp_path / "labels.csv").write_text("id,labels\na,cat\nb,cow\n")
    write(tmp_path, "ImageSets/Segmentation/train.txt", "b\na\n")
    write(tmp_path, "ImageSets/Main/train.txt", "a\n")
    write(tmp_path, "ImageSets/Main/main.txt", "a\n")
    return tmp_path


def write(root: Path, name: str, text: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def read(root: Path, **settings: object) -> Dataset:
    dataset: Dataset = voc.run(Voc.model_validate({"root": str(root), **settings}))
    return dataset


def labels(root: Path, **settings: object) -> list[tuple[str, tuple[int, ...] | None]]:
    return [(record.id, record.labels) for record in read(root, **settings).records]


def refused(root: Path, message: str, **settings: object) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(root, **settings)
    assert "\n" not in str(caught.value)


def test_labels_come_from_what_is_asked_or_there(root: Path) -> None:
    assert labels(root) == [("b", (10,)), ("a", (8,))]
    assert labels(root, labels="csv") == labels(root)
    assert labels(root, labels="xml") == [("b", (12,)), ("a", (12, 15))]
    assert labels(root, labels="masks") == [("b", (8, 12)), ("a", (12,))]
    write(root, "mine/tags.csv", "id;labels\nb;dog, cat\na;dog\n")
    assert labels(root, labels="mine/tags.csv") == [("b", (8, 12)), ("a", (12,))]
    (root / "labels.csv").unlink()
    assert labels(root) == labels(root, labels="xml")
    for file in (root / "Annotations").iterdir():
        file.unlink()
    (root / "Annotations").rmdir()
    assert labels(root, labels="none") == [("b", None), ("a", None)]
    (root / "SegmentationClass/a.png").unlink()
    refused(root, r"train.txt:2: 'a' has no mask to take labels from; give a csv", labels="masks")


def test_masks_give_labels_only_where_that_is_asked_for(root: Path) -> None:
    (root / "labels.csv").unlink()
    for file in (root / "Annotations").iterdir():
        file.unlink()
    (root / "Annotations").rmdir()
    refused(root, r"no labels \(no labels.csv, no Annotations\); write labels: FILE .*labels: masks .*: none")
    assert labels(root, labels="masks") == [("b", (8, 12)), ("a", (12,))]


def test_the_data_set_says_where_its_labels_came_from(root: Path) -> None:
    assert read(root).labels_from == "csv"
    for asked, message in {
        "csv": "csv",
        "xml": "xml",
        "masks": "masks",
        "none": None,
        "labels.csv": "csv",
    }.items():
        assert read(root, labels=asked).labels_from == message


def test_the_list_of_segmentation_comes_before_that_of_main(root: Path) -> None:
    assert [record.id for record in read(root, split="train").records] == ["b", "a"]
    assert [record.id for record in read(root, split="main").records] == ["a"]


def test_masks_of_sbd_are_the_second_choice(root: Path) -> None:
    indexed(root / "SegmentationClassAug/a.png", regions(9, 9, 3))
    assert read(root).records[1].mask == root / "SegmentationClass/a.png"
    (root / "SegmentationClass/a.png").unlink()
    assert read(root).records[1].mask == root / "SegmentationClassAug/a.png"


def test_classes_are_vocs_those_of_the_folder_or_those_given(root: Path) -> None:
    assert read(root).space.names[20] == "tvmonitor"
    write(root, "classes.txt", "background\ncow\ncat\n")
    assert labels(root) == [("b", (1,)), ("a", (2,))]
    write(root, "other.txt", "background\ncat\ncow\n")
    assert labels(root, classes="other.txt") == [("b", (2,)), ("a", (1,))]


def test_missing_files_are_named_with_a_remedy(root: Path) -> None:
    refused(root / "vacant", "vacant: there is no such folder; give the one")
    refused(root, r"Segmentation/tran.txt: there is no such list; did you mean 'train'\?", split="tran")
    refused(root, "none.csv: there is no such file", labels="none.csv")
    refused(root, "none.txt: there is no such file", classes="none.txt")
    write(root, "ImageSets/Segmentation/more.txt", "a\n\nx\ny\n")
    refused(root, r"more.txt:3: no image .*JPEGImages/x.jpg \(2 are missing\)", split="more")
    write(root, "ImageSets/Segmentation/none.txt", "\n\n")
    refused(root, "none.txt: the list is empty", split="none")
    (root / "Annotations/a.xml").unlink()
    refused(root, r"train.txt:2: no annotation .*a.xml; add it or give a csv", labels="xml")


def test_labels_that_do_not_fit_are_refused_with_place_and_remedy(root: Path) -> None:
    for row, message in {
        "id,labels\na,cat\nb,Cow\n": r"labels.csv:3: 'Cow' is not in the class list; did you mean 'cow'\?",
        "id,labels\na,cat\nb,cat;hors\n": r"labels.csv:3: 'hors' is not in .*did you mean 'horse'\?",
        "id,labels\na,cat\nb,background\n": r"labels.csv:3: 'background' is the background",
        "id,labels\na,cat\n": r"labels.csv: no line for 'b' \(.*train.txt:1; 1 of 2 have none\)",
        "id,labels\na,cat\nb,\n": r"train.txt:1: 'b' has no label; add one, or say `empty: background`",
        "id,labels\na,cat\nb,cow\na,dog\n": r"labels.csv:4: 'a' has other labels in line 2; keep one",
        "a,cat\nb,cow\n": r"labels.csv:1: no header; the first line must name the columns",
        "": r"labels.csv:1: no header, the file is empty",
        "file,class\na,cat\nb,cow\n": r"labels.csv:1: the header 'file,class' has no column of the labels; "
        "name it labels, label, tags or classes",
        "name;labels\na;cat\nb;cow\n": r"labels.csv:1: the header 'name,labels' has no column of the image; "
        "name it id, file or image",
        'id,labels\na,cat\nb,"cow\n': r"labels.csv:3: is not csv .*check the quotes",
        "id,labels,x\na,cat,1\nb,cow\n": r"labels.csv:3: 2 fields where the header has 3; put quotes",
        "id,labels\na,cat;dog\nb,cow|dog\n": r"labels.csv:3: elsewhere ';' parts the names; write 'cow\|dog'",
    }.items():
        write(root, "labels.csv", row)
        refused(root, message)


def test_a_header_below_empty_lines_is_found(root: Path) -> None:
    write(root, "labels.csv", "\n\nid;labels\na;cat\nb;cow\n")
    assert [record.labels for record in read(root).records] == [(10,), (8,)]


def test_other_ways_to_write_the_same_labels_are_read(root: Path) -> None:
    wanted = [("b", (8, 12)), ("a", (8,))]
    for row in (
        b"id,labels\na,cat\nb,dog;cat\nb,cat;dog\n",
        b"\xef\xbb\xbfid,labels\r\na,cat\r\nb,dog;cat\r\n",
        b"labels;id\ncat;a\ndog,cat;b\n",
        b'id,labels\na,cat\nb,"dog,cat"\n',
        b"id,labels\na,cat\nb,dog,cat\n",
        b"ID\tLabels\na\tcat\nb\tdog cat cat\n",
        b"id;labels\na;cat\nb;dog;cat\n",
    ):
        write(root, "labels.csv", row)
        assert labels(root) == wanted, row
    write(root, "labels.csv", "id,labels\na,cat\nb,\n")
    assert labels(root, empty="background") == [("b", ()), ("a", (8,))]


def test_annotations_and_masks_that_do_not_fit_are_refused(root: Path) -> None:
    path = root / "Annotations/a.xml"
    path.write_text(PET.format("cta"))
    refused(root, r"a.xml: 'cta' is not in the class list; did you mean 'cat'\?", labels="xml")
    path.write_text("<annotation><object>")
    refused(root, "a.xml: is not XML", labels="xml")
    path.write_text("<annotation><object><bndbox/></object></annotation>")
    refused(root, "a.xml: an object has no name", labels="xml")
    indexed(root / "SegmentationClass/a.png", regions(9, 9, 77))
    refused(root, r"a.png: mask holds 77 .*classes are 0 to 20", labels="masks")


def test_class_lists_that_do_not_fit_are_refused(root: Path) -> None:
    for text, message in {
        "background\n\ncat\n": "classes.txt:2: blank line; line numbers are class ids",
        "background\ncat\ncat\n": "classes.txt: class list names 'cat' twice",
        "background\n": "classes.txt: class list has 1 names",
        "cat\ncow\n": "labels.csv:2: 'cat' is the background, the first name of the class list",
    }.items():
        write(root, "classes.txt", text)
        refused(root, message)


def test_ids_that_share_a_file_name_are_refused_with_both_places(root: Path) -> None:
    for name in ("A", "e\u0301", "\xe9"):
        image(root / f"JPEGImages/{name}.jpg", 5, 5)
    for text, message in {
        "a\nb\na\n": r"two.txt:3: 'a' stands here and at .*two.txt:1; keep one of the lines",
        "a\nA\n": r"two.txt:2: 'A' and 'a' \(.*two.txt:1\) meet in one file name",
        "\xe9\ne\u0301\n": r"two.txt:2: .* meet in one file name",
    }.items():
        write(root, "ImageSets/Segmentation/two.txt", text)
        refused(root, message, split="two")


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=12))
def test_any_name_that_a_list_can_hold_is_looked_up_by_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    name = raw.decode("utf-8", "surrogateescape")
    if name.strip() != name or len(name.splitlines()) != 1 or any(sign in name for sign in "/\\\0\ufeff"):
        return
    root = tmp_path_factory.mktemp("names")
    write(root, "labels.csv", "id,labels\n")
    write(root, "ImageSets/Segmentation/train.txt", raw + b"\n")
    if name in (".", ".."):
        refused(root, "is not an image's name")
        return
    (root / "JPEGImages").mkdir()
    (Path(os.fsencode(root / "JPEGImages").decode()) / os.fsdecode(raw + b".jpg")).write_bytes(b"")
    os.remove(root / "labels.csv")
    (record,) = read(root, labels="none").records
    assert os.fsencode(record.id) == raw
    assert os.fsencode(record.image.name) == raw + b".jpg"


HOSTILE = (
    *("..", ".", "../a", "../../etc/passwd", "/etc/passwd", "//etc/passwd", "a/../../b", "sub/a", "./a"),
    *("..\\a", "C:\\a", "\\\\host\\a", "a\\b", "a\0b", "a\0.jpg", "\0", "~/../a", "a/", "/", "....//a"),
)


@pytest.mark.parametrize("entry", HOSTILE)
def test_an_entry_that_leaves_the_folder_is_refused(root: Path, entry: str) -> None:
    write(root, "ImageSets/Segmentation/bad.txt", f"a\n{entry}\n")
    refused(root, "bad.txt:2: .* is not an image's name; an id is a file name", split="bad")
    refused(root, "split: .* is not an image's name", split=entry)


def test_links_and_special_files_are_refused(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    image(outside / "secret.jpg", 5, 5)
    images = root / "JPEGImages"
    write(root, "ImageSets/Segmentation/one.txt", "c\n")
    write(root, "labels.csv", "id,labels\nc,cat\n")
    (images / "c.jpg").symlink_to(outside / "secret.jpg")
    refused(root, r"one.txt:1: .*c.jpg is a link that leaves .*; put the file itself there", split="one")
    (images / "c.jpg").unlink()
    (images / "c.jpg").symlink_to("a.jpg")  # inside: as some disks share files
    assert labels(root, split="one") == [("c", (8,))]
    (images / "c.jpg").unlink()
    (images / "c.jpg").symlink_to("c.jpg")
    refused(root, "one.txt:1: .*cannot be opened|no image", split="one")
    (images / "c.jpg").unlink()
    os.mkfifo(images / "c.jpg")
    refused(root, r"one.txt:1: .*c.jpg is not a regular file", split="one")
    (images / "c.jpg").unlink()
    (images / "c.jpg").mkdir()
    refused(root, r"one.txt:1: .*c.jpg is not a regular file", split="one")
    linked = root.parent / "linked"
    linked.symlink_to(root)
    assert labels(linked, split="train", labels="xml")[0] == ("b", (12,))


def test_annotations_open_no_entity(root: Path) -> None:
    text = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + PET.format("&e;")
    (root / "Annotations/a.xml").write_text(text)
    refused(root, "a.xml: declares entities", labels="xml")


def test_an_id_too_long_for_a_file_name_is_refused(root: Path) -> None:
    write(root, "ImageSets/Segmentation/long.txt", "ä" * 120 + "\n")
    refused(root, "long.txt:1: the id has 240 bytes, 230 fit; shorten", split="long")
    _files.check_id("a" * 230, "here")


def test_other_suffixes_are_found_jpg_first(root: Path) -> None:
    image(root / "JPEGImages/a.png", 9, 9)
    assert read(root).records[1].image.name == "a.jpg"
    (root / "JPEGImages/a.jpg").unlink()
    assert read(root).records[1].image.name == "a.png"


@pytest.mark.shared
def test_images_are_listed_without_decoding(shared_data: Path) -> None:
    start = time.process_time()
    dataset = read(shared_data / "voc", split="train_aug")
    assert time.process_time() - start < 1
    assert len(dataset.records) == 1800
    assert all(record.mask is not None and record.labels for record in dataset.records)
    cats = sum(8 in (record.labels or ()) for record in dataset.records)
    assert cats == 423  # the README beside them
    val = read(shared_data / "voc", split="val")
    assert len(val.records) == 265
    assert labels(shared_data / "voc", split="val") == labels(
        shared_data / "voc", split="val", labels="masks"
    )
