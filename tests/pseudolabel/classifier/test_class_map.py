"""Class maps: strict files, the shipped one right, names without an id refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

import pseudolabel._torchvision  # noqa: F401
from pseudolabel.classifier.class_map import ClassMap, mapped, read_class_map
from pseudolabel.errors import DataError, UsageError
from pseudolabel.records import LabelSpace

SHIPPED = Path(__file__).parents[3] / "configs/voc/imagenet.yaml"
SPACE = LabelSpace(("background", "dog", "person", "cat"))
MAP = ClassMap(Path("m.yaml"), {"cat": (281, 282), "dog": (151,), "boat": (472,)})
BEGINNINGS = {  # of timm's descriptions, in the order of the ids
    "aeroplane": "airliner, warplane",
    "bicycle": "bicycle-built-for-two, mountain bike",
    "boat": "canoe, catamaran, container ship, fireboat, gondola, lifeboat, liner, pirate, schooner, "
    "speedboat, trimaran, yawl",
    "bottle": "beer bottle, pill bottle, pop bottle, water bottle, wine bottle",
    "bus": "minibus, school bus, trolleybus",
    "car": "beach wagon, cab, convertible, jeep, limousine, minivan, Model T, pickup, racer, sports car",
    "cat": "tabby, tiger cat, Persian cat, Siamese cat, Egyptian cat",
    "chair": "barber chair, folding chair, rocking chair, throne",
    "cow": "ox, water buffalo",
    "diningtable": "dining table",
    "horse": "sorrel",
    "motorbike": "moped, motor scooter",
    "pottedplant": "pot",
    "sheep": "ram, bighorn",
    "sofa": "studio couch",
    "train": "bullet train, electric locomotive, freight car, passenger car, steam locomotive",
    "tvmonitor": "monitor, screen, television",
}
RANGES = {  # first and last of unbroken runs: the neighbours outside are no such animals
    "bird": [(7, "cock", 24, "great grey owl"), (80, "black grouse", 100, "black swan"),
             (127, "white stork", 146, "albatross")],
    "dog": [(151, "Chihuahua", 268, "Mexican hairless")],
}  # fmt: skip
OUTSIDE = {"bird": (6, 25, 79, 101, 126, 147), "dog": (150, 269), "cat": (280, 286), "train": (829,)}


VOC_BUT_PERSON = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip


def describe(number: int) -> str:
    from timm.data import ImageNetInfo

    return str(ImageNetInfo("imagenet-1k").index_to_description(number))


def test_shipped_map_names_all_of_voc_but_person() -> None:
    shipped = read_class_map(SHIPPED)
    assert list(shipped.ids) == VOC_BUT_PERSON
    assert {*BEGINNINGS, *RANGES} == set(shipped.ids)


@pytest.mark.parametrize("name", BEGINNINGS)
def test_shipped_ids_are_what_they_say(name: str) -> None:
    expected = BEGINNINGS[name].split(", ")
    actual = [describe(number) for number in read_class_map(SHIPPED).ids[name]]
    assert len(actual) == len(expected), actual
    for text, beginning in zip(actual, expected, strict=True):
        assert text.startswith(beginning), (text, beginning)


@pytest.mark.parametrize("name", RANGES)
def test_shipped_ranges_begin_and_end_where_they_should(name: str) -> None:
    expected: list[int] = []
    for first, text, last, end in RANGES[name]:
        assert describe(first).startswith(text)
        assert describe(last).startswith(end)
        expected += range(first, last + 1)
    assert list(read_class_map(SHIPPED).ids[name]) == expected


def test_near_ids_of_other_things_are_left_out() -> None:
    ids = read_class_map(SHIPPED).ids
    assert all(number not in ids[name] for name, numbers in OUTSIDE.items() for number in numbers)
    assert describe(829).startswith("streetcar")


REFUSED = {
    "cat: [281]\ndog: [151, 281]\n": r"m.yaml:2: id 281 is 'cat' and 'dog'; an id serves one name",
    "cat:\n  - 281\n  - 281\n": r"m.yaml:\d: 'cat' has id 281 twice",
    "cat: [1000]\n": r"m.yaml:1: 'cat' has 1000, not an ImageNet id of 0..999",
    "cat: [-1]\n": "has -1, not an ImageNet id",
    "cat: [true]\n": "has True, not an ImageNet id",
    "cat: ['281']\n": "has '281', not an ImageNet id",
    "cat: [281.0]\n": "has 281.0, not an ImageNet id",
    "cat: []\n": r"m.yaml:1: 'cat' has no list of ids",
    "cat: 281\n": "'cat' has no list of ids",
    "background: [0]\n": "'background' is no class of its own",
    "cat: [281]\ncat: [282]\n": r"m.yaml:2: key 'cat' stands twice",
    "cat: !!python/object:os.system [281]\n": r"m.yaml:1: tag .* is refused",
    "281: [281]\n": "key 281 is not a word",
    "- 281\n": "a class map has a line a name",
    "": "the class map is empty",
}


@pytest.mark.parametrize("text", REFUSED)
def test_faults_are_reported_with_their_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(UsageError, match=REFUSED[text]) as caught:
        read_class_map(tmp_path / "m.yaml")
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: cannot read the class map"):
        read_class_map(tmp_path / "none.yaml")


def test_classes_of_the_data_keep_their_ids() -> None:
    mapping = mapped(MAP, SPACE, ["person"])
    assert mapping.space == SPACE
    assert (mapping.known, mapping.groups) == ((1, 3), ((151,), (281, 282)))


def test_without_a_class_list_the_map_has_one() -> None:
    mapping = mapped(MAP, None, ["cat"])
    assert mapping.space.names == ("background", "cat", "dog", "boat")
    assert (mapping.known, mapping.groups) == ((2, 3), ((151,), (472,)))


def test_names_without_an_id_are_all_named() -> None:
    space = LabelSpace((*SPACE.names, "table"))
    with pytest.raises(
        DataError, match=r"m.yaml: no ImageNet id for person, table;.*leave_out: \[person, table\]"
    ):
        mapped(MAP, space)
    with pytest.raises(DataError, match=r"no ImageNet id for person;.*leave_out: \[table, person\]"):
        mapped(MAP, space, ["table"])
    with pytest.raises(
        DataError, match="leave_out: 'persn' is not a class of the data; did you mean 'person'"
    ):
        mapped(MAP, SPACE, ["persn"])
    with pytest.raises(DataError, match="no class is left"):
        mapped(MAP, SPACE, ["person", "cat", "dog"])
