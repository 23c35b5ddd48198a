"""A folder of images and a table of tags: what is read, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pseudolabel.errors import DataError
from pseudolabel.readers.table import Table, table
from pseudolabel.records import Dataset
from tests.oracles.readers import image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images a.jpg, b.PNG, 007.jpg in one folder."""
    for name in ("a.jpg", "b.PNG", "007.jpg"):
        image(tmp_path / name, 6, 8)
    return tmp_path


def read(root: Path, text: str | bytes, name: str = "tags.csv", **settings: object) -> Dataset:
    (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    dataset: Dataset = table.run(Table.model_validate({"root": str(root), "labels": name, **settings}))
    return dataset


def rows(*given: object, **settings: object) -> list[tuple[str, str, tuple[int, ...] | None]]:
    dataset = read(*given, **settings)  # type: ignore[arg-type]
    return [(record.id, record.image.name, record.labels) for record in dataset.records]


def refused(message: str, *given: object, **settings: object) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(*given, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


GOOD = "id,labels\nb,owl;ant\n007,ant\na,bee\n"
WANTED = [("b", "b.PNG", (1, 3)), ("007", "007.jpg", (1,)), ("a", "a.jpg", (2,))]


def test_ids_and_files_in_the_order_of_the_table(root: Path) -> None:
    assert rows(root, GOOD) == WANTED
    assert read(root, GOOD).space.names == ("background", "ant", "bee", "owl")
    assert rows(root, "file,labels\nb.PNG,owl;ant\n007.jpg,ant\n./a.jpg,bee\n") == WANTED
    assert rows(root, "image;tags\nb;ant owl\n007;ant\na;bee\n") == WANTED
    assert rows(root, "label,id\nant|owl,b\nant,007\nbee,a\n") == WANTED
    assert rows(root, b"\xef\xbb\xbfid,labels\r\nb,ant,owl\r\n007,ant\r\na,bee\r\n") == WANTED


def test_images_in_subfolders_are_named_by_their_file(root: Path) -> None:
    image(root / "more/c.jpg", 5, 5)
    assert rows(root, GOOD + "more/c.jpg,ant\n")[3] == ("c", "c.jpg", (1,))
    assert rows(root, GOOD + "more/c,ant\n")[3] == ("c", "c.jpg", (1,))
    image(root / "more/a.jpg", 5, 5)
    refused(r"tags.csv:5: 'a' stands here and at .*tags.csv:4", root, GOOD + "more/a.jpg,ant\n")
    text = "id,labels\nb,owl\n007,ant\nmore/a.jpg,bee\n"
    refused(r"no line for 'a.jpg' \(1 images", root, text)


def test_lists_of_numbers_need_class_names(root: Path) -> None:
    (root / "names.txt").write_text("background\nant\nbee\nowl\n")
    text = "b 2 0 \n007  0\na.jpg 1 1\n"
    assert rows(root, text, "list.txt", classes="names.txt") == WANTED
    refused("list.txt: a list of class numbers needs `classes`", root, text, "list.txt")
    for word in ("3", "-1", "x", "1.0", "²"):
        message = r"list.txt:2: .* is not a class number 0..2; 0 is the first class after the background"
        refused(message, root, f"b 2\n007 {word}\n", "list.txt", classes="names.txt")
    assert rows(root, GOOD, "tags.txt", classes="names.txt") == WANTED


def test_given_classes_decide_the_ids_and_know_names_with_blanks(root: Path) -> None:
    (root / "names.txt").write_text("ground\nowl\npotted plant\nbee\nant\n")
    text = "id,labels\nb,potted plant\n007,ant\na,bee owl\n"
    assert [labels for _, _, labels in rows(root, text, classes="names.txt")] == [(2,), (4,), (1, 3)]
    message = r"tags.csv:2: 'ants' is not in the class list; did you mean 'ant'\?"
    refused(message, root, "id,labels\nb,ants\n007,ant\na,bee\n", classes="names.txt")
    message = "tags.csv:3: 'ground' is the background"
    refused(message, root, "id,labels\nb,ant\n007,ground\na,bee\n", classes="names.txt")


def test_the_split_is_a_column(root: Path) -> None:
    text = "id,labels,split\nb,owl,val\n007,ant,train\na,bee,val\n"
    assert [name for name, _, _ in rows(root, text, split="val")] == ["b", "a"]
    assert read(root, text, split="val").space == read(root, text, split="train").space
    assert len(rows(root, text)) == 3
    refused(r"no line has split 'test'; there are 'train', 'val'", root, text, split="test")
    refused(r"tags.csv:1: has no column 'split'; add one, or leave `split` out", root, GOOD, split="val")


def test_masks_are_taken_where_they_are(root: Path) -> None:
    image(root / "truth/a.png", 6, 8)
    assert [record.mask for record in read(root, GOOD, masks="truth").records] == [
        None,
        None,
        root / "truth/a.png",
    ]
    refused("void: there is no such folder", root, GOOD, masks="void")


def test_lines_and_images_without_each_other_are_counted(root: Path) -> None:
    message = r"tags.csv:5: no image 'x' in .* \(2 of 5 lines have none\); add them, or say `missing: skip`"
    refused(message, root, GOOD + "x,ant\ny,ant\n")
    assert rows(root, GOOD + "x,ant\ny,ant\n", missing="skip") == WANTED
    image(root / "c.webp", 5, 5)
    image(root / "d.tif", 5, 5)
    message = r"tags.csv: no line for 'c.webp', 'd.tif' \(2 images in .* have none\); add lines, or say"
    refused(message, root, GOOD)
    assert rows(root, GOOD, missing="skip") == WANTED
    refused("no image is left", root, "id,labels\nx,ant\n", missing="skip")


def test_labels_that_do_not_fit_are_refused_with_place_and_remedy(root: Path) -> None:
    for text, message in {
        "id,labels\nb,owl\n007,Owl\na,bee\n": r"tags.csv:3: 'Owl' is 'owl' in line 2; write one of them",
        "id,labels\nb,owl\n007,\na,bee\n": r"tags.csv:3: '007' has no label; add one, or say `empty",
        "id,labels\nb,owl\n007,background\na,bee\n": r"tags.csv:3: 'background' is no label",
        "id,labels\nb,\n007,\na,\n": "no line has a label",
        "id,labels\n": "there are no lines below the header",
        GOOD + "a.jpg,owl\n": r"tags.csv:5: 'a.jpg' has other labels in line 4; keep one",
        "b,owl\n007,ant\na,bee\n": "tags.csv:1: no header",
    }.items():
        refused(message, root, text)
    assert rows(root, GOOD + "a.jpg,bee\n") == WANTED
    labelled = rows(root, "id,labels\nb,owl\n007,\na,bee\n", empty="background")
    assert [labels for _, _, labels in labelled] == [(2,), (), (1,)]


def test_two_files_of_one_id_and_ids_that_share_a_file_name_are_refused(root: Path) -> None:
    image(root / "a.png", 5, 5)
    refused(r"tags.csv:4: 'a' may be a.jpg or a.png; write the file's whole name", root, GOOD)
    text = GOOD.replace("\na,", "\na.jpg,")
    assert rows(root, text, missing="skip") == WANTED
    refused(r"tags.csv:5: 'a' stands here and at", root, text + "a.png,bee\n")
    (root / "a.png").unlink()
    image(root / "A.jpg", 5, 5)
    refused(r"tags.csv:5: 'A' and 'a' \(.*tags.csv:4\) meet in one file name", root, GOOD + "A,bee\n")


def test_ids_are_text_and_never_numbers(root: Path) -> None:
    names = ["7", "1e5", "nan", "-dash", "two  blanks", "CON", "#%'", "🦉", "line\nbreak", "007.5"]
    for name in names:
        image(root / f"{name}.jpg", 5, 5)
    labelled = rows(root, GOOD + "".join(f'"{name}",ant\n' for name in names))
    assert [name for name, _, _ in labelled] == ["b", "007", "a", *names]


@pytest.mark.parametrize(
    "entry",
    [
        *("../a.jpg", "../../x", "/etc/passwd", "sub/../../a.jpg", "C:\\a.jpg", "c:a.jpg", "..\\a.jpg"),
        *("\\\\host\\a.jpg", "a\0.jpg", "..", "sub/..", "//a.jpg", ""),
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(root: Path, entry: str) -> None:
    (root / "inner").mkdir()
    for name in ("b.PNG", "007.jpg", "a.jpg"):
        os.rename(root / name, root / "inner" / name)
    image(root / "a.jpg", 5, 5)
    image(root.parent / "a.jpg", 5, 5)
    refused(r"tags.csv:5: .* leaves .*inner; name a file in it", root, f"{GOOD}{entry},ant\n", images="inner")


def test_links_that_leave_are_refused(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    image(outside / "c.jpg", 5, 5)
    (root / "way").symlink_to(outside)
    refused(r"tags.csv:5: .*way/c.jpg leaves .* through a link", root, GOOD + "way/c.jpg,ant\n")
    (root / "c.jpg").symlink_to(outside / "c.jpg")
    refused(r"tags.csv:5: .*c.jpg is a link that leaves", root, GOOD + "c,ant\n")


def test_missing_places_are_named(root: Path) -> None:
    refused("void: there is no such folder", root, GOOD, images="void")
    with pytest.raises(DataError, match=r"none.csv: there is no such file; check the path"):
        table.run(Table(root=str(root), labels="none.csv"))
