"""The whole line through both command lines, on a few small scenes and tiny networks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pseudolabel.cli
import segtrain.cli

SCENES = "train: 8, val: 4, size: 64"
BACKBONE = "test_resnet"

Answer = tuple[int, str, str]


def pixels(path: Path) -> Any:
    """An image's array as most trainers read it."""
    with Image.open(path) as image:
        return np.array(image)


def ask(app: Any, capsys: pytest.CaptureFixture[str], *words: object) -> Answer:
    """Exit code, standard output and standard error of a command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        app([str(word) for word in words])
    output = capsys.readouterr()
    return int(left.value.code or 0), output.out, output.err


@pytest.fixture
def pl(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    return lambda *words: ask(pseudolabel.cli.app, capsys, *words)


@pytest.fixture
def seg(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    return lambda *words: ask(segtrain.cli.app, capsys, *words)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipes, a trained classifier and masks with their maps."""
    from pseudolabel import generate, train

    root = tmp_path_factory.mktemp("line")
    data = f"{{reader: scenes, root: {root}/scenes, split: train, {SCENES}}}"
    (root / "classifier.yaml").write_text(
        f"data: {data}\nvalidation: {{split: val}}\nnetwork: {{backbone: {BACKBONE}, weights: none}}\n"
        "optimizer: {lr: 0.01}\nschedule: {epochs: 1, batch: 4}\naugmentation: {resize: [64, 64], crop: 64}\n"
    )
    (root / "cam.yaml").write_text(
        f"data: {data}\nclassifier: {{checkpoint: {root}/classifier}}\nmaps:\n  - method: {{name: cam}}\n"
        "    refine: [{name: normalise, method: max}]\nbackground: {name: constant, threshold: 0.3}\n"
        "output: {maps: true, overlays: true}\n"
    )
    (root / "segmentation.yaml").write_text(
        f"data: {data}\nmasks: {root}/cam\nvalidation: {{split: val}}\n"
        f"network: {{encoder: tu-mobilenetv3_small_050, weights: none}}\n"
        "schedule: {epochs: 1, batch: 4}\naugmentation: {crop: 64}\n"
    )
    train(root / "classifier.yaml", root / "classifier", workers=0, quiet=True)
    generate(root / "cam.yaml", root / "cam", workers=0, quiet=True)
    return root


def test_every_command_does_its_part(
    line: Path, tmp_path: Path, pl: Callable[..., Answer], seg: Callable[..., Answer]
) -> None:
    code, out, err = pl("generate", line / "cam.yaml", "-o", line / "cam", "--json", "--workers", 0)
    assert code == 0, err
    assert json.loads(out)["skipped"] == 8  # the second call finds all done
    code, out, err = pl("reference", line / "cam.yaml", "-o", tmp_path / "r.safetensors", "--quiet")
    assert code == 0, err
    code, out, err = pl("evaluate", line / "cam", "--reference", tmp_path / "r.safetensors", "--json")
    assert code == 0, err
    scores = json.loads(out)
    assert scores["images"] == 8
    assert scores["reference"]["threshold"] == 0.25
    assert set(scores["readings"]) == {"background", "ignore", "wrong"}
    assert scores["parts"]
    code, out, err = pl("sweep", line / "cam", "--thresholds", "0.1:0.5:0.2", "--json")
    assert code == 0, err
    assert [row["threshold"] for row in json.loads(out)["rows"]] == [0.1, 0.3, 0.5]
    assert json.loads(out)["rows"][1]["miou"] == scores["miou"]
    code, out, err = pl(
        "refine", line / "cam", "-o", tmp_path / "refined", "--set", "background.threshold=0.1"
    )
    assert code == 0, err
    code, out, err = pl("export", line / "cam", "-o", tmp_path / "grey", "--to", "grey")
    assert code == 0, err
    for mask in sorted((line / "cam" / "masks").iterdir()):
        assert np.array_equal(pixels(mask), pixels(tmp_path / "grey/masks" / mask.name))
    code, out, err = seg("check", line / "segmentation.yaml")
    assert code == 0, err
    code, out, err = seg(
        "train", line / "segmentation.yaml", "-o", tmp_path / "seg", "--quiet", "--workers", 0
    )
    assert code == 0, err
    code, out, err = seg("evaluate", tmp_path / "seg", "--json")
    assert code == 0, err
    assert json.loads(out)["images"] == 4
    code, out, err = seg(
        "predict", tmp_path / "seg", line / "scenes/JPEGImages", "-o", tmp_path / "predicted"
    )
    assert code == 0, err
    for image in sorted((line / "scenes/JPEGImages").iterdir()):
        predicted = next((tmp_path / "predicted").rglob(f"{image.stem}.png"))
        assert pixels(predicted).shape == pixels(image).shape[:2]


def wrong_file(root: Path, copy: Path) -> list[object]:
    return ["generate", copy / "absent.yaml", "-o", copy / "out"]


def wrong_key(root: Path, copy: Path) -> list[object]:
    return ["generate", root / "cam.yaml", "-o", copy / "out", "--set", "background.treshold=0.1"]


def wrong_checkpoint_path(root: Path, copy: Path) -> list[object]:
    return ["generate", root / "cam.yaml", "-o", copy / "out", "--set", f"classifier.checkpoint={copy}/none"]


def wrong_label(root: Path, copy: Path) -> list[object]:
    table = copy / "scenes" / "labels.csv"
    rows = table.read_text().splitlines()
    name = rows[1].partition(",")[2].partition(";")[0]
    table.write_text("\n".join([rows[0], rows[1].replace(name, name + "x"), *rows[2:]]) + "\n")
    return ["generate", root / "cam.yaml", "-o", copy / "out", "--set", f"data={voc(copy)}"]


def wrong_no_label(root: Path, copy: Path) -> list[object]:
    table = copy / "scenes" / "labels.csv"
    rows = table.read_text().splitlines()
    table.write_text("\n".join([rows[0], *rows[2:]]) + "\n")
    return ["generate", root / "cam.yaml", "-o", copy / "out", "--set", f"data={voc(copy)}"]


def wrong_classes(root: Path, copy: Path) -> list[object]:
    names = copy / "scenes" / "classes.txt"
    rows = names.read_text().splitlines()
    names.write_text("\n".join([rows[0], rows[2], rows[1], *rows[3:]]) + "\n")
    return ["generate", root / "cam.yaml", "-o", copy / "out", "--set", f"data={voc(copy)}"]


def wrong_size(root: Path, copy: Path) -> list[object]:
    mask = next((copy / "cam" / "masks").iterdir())
    with Image.open(mask) as image:
        wider = image.resize((image.width + 3, image.height), Image.Resampling.NEAREST)
    wider.save(mask)
    return ["evaluate", copy / "cam"]


def wrong_missing_mask(root: Path, copy: Path) -> list[object]:
    next((copy / "cam" / "masks").iterdir()).unlink()
    return ["evaluate", copy / "cam"]


def wrong_folder(root: Path, copy: Path) -> list[object]:
    return ["generate", root / "cam.yaml", "-o", copy / "cam", "--set", "background.threshold=0.1"]


def wrong_stranger(root: Path, copy: Path) -> list[object]:
    (copy / "mine").mkdir()
    (copy / "mine" / "thesis.tex").write_text("mine")
    return ["generate", root / "cam.yaml", "-o", copy / "mine"]


def wrong_device(root: Path, copy: Path) -> list[object]:
    return ["generate", root / "cam.yaml", "-o", copy / "out", "--device", "cuda:7"]


def voc(copy: Path) -> str:
    return f"{{reader: voc, root: {copy}/scenes, split: train}}"


WRONG = [
    (wrong_file, 2, ["absent.yaml", "cannot read the recipe"]),
    (wrong_key, 2, ["background.treshold", "did you mean 'threshold'"]),
    (wrong_checkpoint_path, 1, ["none"]),
    (wrong_label, 1, ["labels.csv:2", "did you mean"]),
    (wrong_no_label, 1, ["label"]),
    (wrong_classes, 1, ["classes differ", "first at id 1, 'ember' against 'lagoon'"]),
    (wrong_size, 1, [".png", " x "]),
    (wrong_missing_mask, 1, ["1 of 8 images have no mask: train_"]),
    (wrong_folder, 2, ["background.threshold", "0.3", "0.1"]),
    (wrong_stranger, 2, ["mine"]),
    (wrong_device, 1, ["cuda:7", "present are cpu"]),
]


@pytest.mark.parametrize(
    ("fault", "exit_code", "parts_of_message"), WRONG, ids=lambda v: getattr(v, "__name__", None)
)
def test_wrong_input_is_one_line_with_place_and_remedy(
    line: Path, tmp_path: Path, pl: Callable[..., Answer],
    fault: Callable[[Path, Path], list[object]], exit_code: int, parts_of_message: list[str],
) -> None:  # fmt: skip
    for name in ("scenes", "cam"):
        shutil.copytree(line / name, tmp_path / name)
    words = fault(line, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"}
    code, out, err = pl(*words, "--quiet") if words[0] != "evaluate" else pl(*words)
    assert code == exit_code, (code, err)
    assert "Traceback" not in err
    assert out == ""
    for part in parts_of_message:
        assert part in err, err
    assert len([row for row in err.splitlines() if not row.startswith("warning")]) <= 2, err
    lost = [p for p, data in before.items() if not p.is_file() or p.read_bytes() != data]
    assert not lost
    assert not list((tmp_path / "out" / "masks").glob("*.png")) if (tmp_path / "out").exists() else True


def test_rgb_masks_are_refused_before_the_first_step(
    line: Path, tmp_path: Path, seg: Callable[..., Answer]
) -> None:
    shutil.copytree(line / "cam", tmp_path / "cam")
    names = sorted((tmp_path / "cam" / "masks").iterdir())
    for mask in names[:2]:
        with Image.open(mask) as image:
            coloured = image.convert("RGB")
        coloured.save(mask)
    for command in (["check"], ["train", "-o", tmp_path / "seg"]):
        words = [command[0], line / "segmentation.yaml", *command[1:], "--set", f"masks={tmp_path}/cam"]
        code, out, err = seg(*words)
        assert code == 1
        assert "Traceback" not in err
        for mask in names[:2]:
            assert mask.name in out + err
        assert "RGB" in out + err
    assert not list(tmp_path.glob("seg/checkpoints/*"))


def test_json_errors_have_a_kind(line: Path, pl: Callable[..., Answer], tmp_path: Path) -> None:
    code, out, _ = pl("generate", line / "cam.yaml", "-o", tmp_path / "x", "--set", "batch=0", "--json")
    assert code == 2
    assert json.loads(out)["error"]["kind"] == "usage"
    assert not (tmp_path / "x").exists()


def test_a_broken_image_is_named_and_the_others_are_done(
    line: Path, tmp_path: Path, pl: Callable[..., Answer]
) -> None:
    shutil.copytree(line / "scenes", tmp_path / "scenes")
    first = sorted((tmp_path / "scenes/JPEGImages").glob("*train*"))[0]
    first.write_bytes(first.read_bytes()[:200])
    words = ["generate", line / "cam.yaml", "-o", tmp_path / "out", "--set", f"data={voc(tmp_path)}"]
    code, out, err = pl(*words, "--json", "--workers", 0)
    assert code == 1, err
    assert json.loads(out)["failed"] == 1
    assert json.loads(out)["images"] == 7
    rows = [json.loads(row) for row in (tmp_path / "out/problems.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [first.stem] or first.stem in rows[0]["file"]
    code, _, err = pl(*words[:3], tmp_path / "other", *words[4:], "--on-bad", "stop")
    assert code == 1
    assert first.stem in err


def test_masks_have_voc_colours_and_right_indices(line: Path) -> None:
    with Image.open(next((line / "cam" / "masks").iterdir())) as mask:
        palette = mask.getpalette()
        ids = np.array(mask)
        assert mask.mode == "P"
    assert palette is not None
    assert palette[3:6] == [128, 0, 0]
    assert palette[255 * 3 :] == [224, 224, 192]
    assert set(np.unique(ids)) <= {*range(7), 255}
