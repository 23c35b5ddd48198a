"""`sweep`: a row equals making the masks at that threshold and scoring them; splits, halves, refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pseudolabel.commands.evaluate import evaluate
from pseudolabel.commands.sweep import GRID
from pseudolabel.commands.sweep import sweep as sweep_command
from pseudolabel.draws import seed_of
from pseudolabel.errors import DataError, UsageError
from pseudolabel.masks import write_mask
from pseudolabel.pipeline import postprocessing
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.records import Scores
from pseudolabel.runs import disk, layout
from tests.pseudolabel.finished_run import seal

IDS = tuple(f"{i:03d}" for i in range(18))
NAMES = ("background", "cat", "dog")
SAME = (
    "miou",
    "classes_averaged",
    "dr_recall",
    "ndr_recall",
    "fg_precision",
    "fg_recall",
    "fg_hit",
    "coverage",
)


def sweep(*args, **options):
    """What sweep.json holds."""
    return sweep_command(*args, **options).as_dict()


def recipe_of(root, background="constant", **options):
    return {
        "data": {"reader": "voc", "root": str(root / "voc"), "split": "val", "labels": "csv"},
        "classifier": {"checkpoint": "nowhere"},
        "maps": [
            {"method": {"name": "cam"}, "refine": [{"name": "smooth", "size": 3}, {"name": "normalise"}]}
        ],
        "background": {"name": background},
        **options,
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data set in VOC layout, a run with stored maps, reference maps; 18 images of two classes."""
    root = tmp_path_factory.mktemp("sweep")
    random = np.random.default_rng(0)
    lists = root / "voc" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(IDS) + "\n")
    (root / "voc" / "classes.txt").write_text("background\ncat\ndog\n")
    labels, ids, reference = [], {}, {}
    for index, item in enumerate(IDS):
        shape = (16 + index % 3, 20)
        truth = np.zeros(shape, np.uint8)
        present = [(1,), (2,), (1, 2)][index % 3]
        for place, c in enumerate(present):
            truth[3:12, 2 + 9 * place : 10 + 9 * place] = c
        truth[3, :] = 255
        write_mask(root / "voc" / "SegmentationClass" / f"{item}.png", truth)
        pixels = (truth[..., None] * 40 + random.integers(0, 60, size=(*shape, 3))).astype(np.uint8)
        (root / "voc" / "JPEGImages").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / "voc" / "JPEGImages" / f"{item}.jpg", quality=95)
        labels.append(item + "," + " ".join(["cat", "dog"][c - 1] for c in present))
        values = np.stack([(truth == c) * 2.0 + random.random(shape) * 2 for c in present]).astype(np.float32)
        tensors = {"scores": torch.from_numpy(values), "ids": torch.tensor(present)}
        (root / "run" / "maps").mkdir(parents=True, exist_ok=True)
        save_file(tensors, root / "run" / "maps" / f"{item}.safetensors")
        ids[item] = list(present)
        reference[item] = torch.from_numpy(random.random((len(present), 4, 5)).astype(np.float32))
    (root / "voc" / "labels.csv").write_text("id,labels\n" + "\n".join(labels) + "\n")
    meta = {"ids": json.dumps(ids), "threshold": "0.5", "rule": "own", "classifier": "0" * 64}
    meta["classes"] = json.dumps(NAMES)
    save_file(reference, root / "reference.safetensors", meta)
    seal(root / "run", IDS, NAMES)
    return root


@pytest.fixture
def run(root):
    """The run with the plain recipe."""
    write_recipe(root, recipe_of(root))
    return root / "run"


def write_recipe(root, wanted):
    (root / "run" / "recipe.yaml").write_text(dump_recipe(load_recipe(wanted, GenerateRecipe)))


def masks_at(root, wanted, threshold, out):
    """Masks of a run at one threshold, made one at a time."""
    loaded = load_recipe(wanted, GenerateRecipe, [f"background.threshold={threshold}"])
    for item in IDS:
        tensors = load_file(root / "run" / "maps" / f"{item}.safetensors")
        pixels = np.asarray(Image.open(root / "voc" / "JPEGImages" / f"{item}.jpg"))
        scores = Scores(tuple(tensors["ids"].tolist()), tensors["scores"])
        refined = postprocessing.refine(scores, pixels, loaded.maps[0].refine)
        write_mask(
            out / f"{item}.png",
            postprocessing.resolve(refined, pixels, loaded.background, loaded.postprocess),
        )


@pytest.mark.parametrize("background", ["constant", "superpixel"])
def test_a_row_equals_scoring_masks_made_at_its_threshold(root, tmp_path, background):
    wanted = recipe_of(root, background)
    write_recipe(root, wanted)
    maps = root / "reference.safetensors"
    result = sweep(
        root / "run",
        reference=maps,
        thresholds=(0.3, 0.1, 0.5),
        workers=0,
        quiet=True,
        average_over=("cat", "dog"),
    )
    assert [row["threshold"] for row in result["rows"]] == [0.1, 0.3, 0.5]
    for row in result["rows"]:
        masks_at(root, wanted, row["threshold"], tmp_path / "masks")
        loaded = load_recipe(wanted, GenerateRecipe)
        alone = evaluate(
            masks=tmp_path / "masks",
            data=loaded.data,
            reference=maps,
            average_over=("cat", "dog"),
            quiet=True,
        ).as_dict()
        assert {name: row[name] for name in SAME} == {name: alone[name] for name in SAME}
        assert {name: row[name] for name in alone["legacy"]} == alone["legacy"]
    assert len({row["miou"] for row in result["rows"]}) > 1
    assert result["background"] == background


def test_the_number_of_workers_changes_nothing(run, root):
    here = sweep(run, reference=root / "reference.safetensors", workers=0, quiet=True)
    stored = (run / "sweep.json").read_bytes()
    image = (run / "sweep.png").read_bytes()
    assert sweep(run, reference=root / "reference.safetensors", workers=2, quiet=True) == here
    assert (run / "sweep.json").read_bytes() == stored
    assert (run / "sweep.png").read_bytes() == image
    assert json.loads(stored) == json.loads(json.dumps(here))


def test_says_what_was_picked_and_on_which_images(run, capsys):
    result = sweep(run, workers=0)
    assert [row["threshold"] for row in result["rows"]] == list(GRID)
    assert result["best"]["miou"] == max(row["miou"] for row in result["rows"])
    assert (result["split"], result["images"], result["key"]) == ("val", 18, "background.threshold")
    assert result["classes_averaged"] == 3
    assert result["reference"] is result["best"]["dr_recall"] is None
    assert "pl reference" in capsys.readouterr().err
    with Image.open(run / "sweep.png") as image:
        assert image.size == (1280, 800)


def test_held_out_half_is_scored_at_the_threshold_of_the_other(run, root):
    result = sweep(run, thresholds=(0.2, 0.4, 0.6), workers=0, quiet=True)["held_out"]
    assert result["images_picked"] + result["images"] == 18
    assert min(result["images_picked"], result["images"]) > 3
    assert result["threshold"] in (0.2, 0.4, 0.6)
    lists = root / "voc" / "ImageSets" / "Segmentation"
    for half, key in ((0, "miou_picked"), (1, "miou")):
        chosen = [item for item in IDS if seed_of("half", item) & 1 == half]
        (lists / f"half{half}.txt").write_text("\n".join(chosen) + "\n")
        alone = sweep(
            run, thresholds=(0.2, 0.4, 0.6), overrides=[f"data.split=half{half}"], workers=0, quiet=True
        )
        assert alone["held_out"] is None
        wanted = {row["threshold"]: row["miou"] for row in alone["rows"]}[result["threshold"]]
        assert result[key] == wanted
        if half == 0:
            assert alone["best"]["threshold"] == result["threshold"]


def test_of_equal_rows_the_first_is_best(run):
    result = sweep(run, thresholds=(0.3, 0.3 + 1e-12, 0.3 + 2e-12), workers=0, quiet=True)
    assert len({row["miou"] for row in result["rows"]}) == 1
    assert result["best"] == result["rows"][0]


@pytest.mark.parametrize(("no_label", "hit"), [("background", 1.0), ("ignore", 0.0)])
def test_an_image_without_a_class_is_what_the_recipe_says(root, tmp_path, no_label, hit):
    write_recipe(root, recipe_of(root, no_label=no_label))
    file = root / "run" / "maps" / f"{IDS[0]}.safetensors"
    kept = file.read_bytes()
    save_file({"scores": torch.zeros(0, 16, 20), "ids": torch.zeros(0, dtype=torch.int64)}, file)
    seal(root / "run", IDS, NAMES)
    try:
        row = sweep(root / "run", thresholds=(0.3,), limit=1, workers=0, quiet=True)["best"]
    finally:
        file.write_bytes(kept)
        seal(root / "run", IDS, NAMES)
    assert row["coverage"] == hit


def test_refusals_name_place_and_remedy(run, root, tmp_path):
    maps = run / "maps"
    (maps / "005.safetensors").rename(maps / "hidden")
    try:
        with pytest.raises(DataError, match=r"1 of 18 images have no stored maps: 005; .*output\.maps=true"):
            sweep(run, quiet=True)
        (maps / "005.safetensors").write_bytes(b"broken")
        with pytest.raises(DataError, match=r"1 of 18 images cannot be swept: .*005\.safetensors"):
            sweep(run, thresholds=(0.3,), workers=0, quiet=True)
        save_file({"scores": torch.ones(1, 4, 4), "ids": torch.tensor([1])}, maps / "005.safetensors")
        with pytest.raises(DataError, match=r"005\.safetensors: has changed since the run made it"):
            sweep(run, thresholds=(0.3,), workers=0, quiet=True)
        seal(run, IDS, NAMES)
        with pytest.raises(DataError, match=r"005\.safetensors: maps are 4 x 4, the truth 18 x 20"):
            sweep(run, thresholds=(0.3,), workers=0, quiet=True)
    finally:
        (maps / "hidden").rename(maps / "005.safetensors")
        seal(run, IDS, NAMES)
    with pytest.raises(UsageError, match=r"2\.0 is refused by 'constant'"):
        sweep(run, thresholds=(2.0,), workers=0, quiet=True)
    with pytest.raises(UsageError, match="thresholds are empty"):
        sweep(run, thresholds=(), quiet=True)
    with pytest.raises(UsageError, match="'kat' is not a class"):
        sweep(run, average_over=("kat",), quiet=True)
    write_recipe(root, recipe_of(root, "power"))
    with pytest.raises(UsageError, match=r"swept over 'alpha'.*--thresholds"):
        sweep(run, quiet=True)
    with pytest.raises(UsageError, match=r"no recipe\.yaml"):
        sweep(Path(tmp_path), quiet=True)


def test_a_reference_of_other_classes_or_another_classifier_is_refused(run, root, tmp_path):
    meta = {
        "threshold": "0.5",
        "rule": "own",
        "classifier": "0" * 64,
        "ids": json.dumps({i: [] for i in IDS}),
    }
    other = tmp_path / "reference.safetensors"
    save_file({}, other, {**meta, "classes": '["background", "dog", "cat"]'})
    with pytest.raises(DataError, match="classes are not those of the data: id 1 is 'dog', wanted 'cat'"):
        sweep(run, reference=other, quiet=True)
    disk.write_json(run / "fingerprint.json", {"kind": "generate", "classifier": "1" * 64})
    try:
        with pytest.raises(DataError, match=r"made by the classifier 0{12}.* by 1{12}; `pl reference"):
            sweep(run, reference=root / "reference.safetensors", quiet=True)
        swept = sweep(
            run,
            reference=root / "reference.safetensors",
            other_classifier=True,
            thresholds=(0.3,),
            workers=0,
            quiet=True,
        )
        assert swept["reference"]["classifier"] == "0" * 64
    finally:
        seal(run, IDS, NAMES)


def test_maps_that_changed_places_are_refused(run):
    first, second = (run / "maps" / f"{item}.safetensors" for item in ("001", "004"))
    contents = first.read_bytes(), second.read_bytes()
    assert len(contents[0]) == len(contents[1]), "nothing but the digest tells them apart"
    try:
        first.write_bytes(contents[1])
        second.write_bytes(contents[0])
        with pytest.raises(
            DataError, match=r"2 of 18 images cannot be swept: .*001.*has changed since the run"
        ):
            sweep(run, thresholds=(0.3,), workers=0, quiet=True)
    finally:
        first.write_bytes(contents[0])
        second.write_bytes(contents[1])


def test_the_list_and_the_limit_of_the_run_are_remembered(run, root, capsys):
    try:
        seal(run, IDS[:5], NAMES)
        disk.write_json_lines(run / "problems.jsonl", [{"file": IDS[5], "code": "unreadable"}])
        for item in IDS[:5]:
            write_mask(run / "masks" / f"{item}.png", np.zeros((16 + int(item) % 3, 20), np.uint8))
        with pytest.raises(DataError, match=rf"1 of 6 images have no mask: {IDS[5]}"):
            evaluate(run, quiet=True)
        (run / "problems.jsonl").unlink()
        swept, scored = sweep(run, thresholds=(0.3,), workers=0, quiet=True), evaluate(run)
        assert (swept["images"], scored.images) == (5, 5)
        assert "was asked for 5 of the 18 listed images" in capsys.readouterr().err
    finally:
        shutil.rmtree(run / "masks")
        (run / "problems.jsonl").unlink(missing_ok=True)
        seal(run, IDS, NAMES)


def test_superpixels_are_kept_where_the_recipe_says(root, run, tmp_path):
    kept = tmp_path / "kept"
    write_recipe(root, recipe_of(root, "superpixel"))
    bare = sweep(run, thresholds=(0.1, 0.5), workers=0, quiet=True)
    override = [f"output.superpixels={kept}"]
    for workers in (2, 0):  # the first makes them in processes, the second reads them
        result = sweep(run, thresholds=(0.1, 0.5), overrides=override, workers=workers, quiet=True)
        assert result["rows"] == bare["rows"]
        assert len(list(kept.rglob("*.superpixels"))) == len(IDS)


def test_an_image_that_has_changed_since_the_maps_were_made_is_refused(run, root):
    lines = disk.read_json_lines(run / layout.MANIFEST)
    for line in lines:
        line["input_sha256"] = disk.sha256_file(root / "voc" / "JPEGImages" / f"{line['id']}.jpg")
    try:
        disk.write_json_lines(run / layout.MANIFEST, lines)
        assert sweep(run, thresholds=(0.3,), workers=0, quiet=True)["images"] == 18
        lines[4]["input_sha256"] = "0" * 64
        disk.write_json_lines(run / layout.MANIFEST, lines)
        with pytest.raises(DataError, match=r"1 of 18 images cannot be swept: .*004\.jpg: has changed since"):
            sweep(run, thresholds=(0.3,), workers=0, quiet=True)
    finally:
        seal(run, IDS, NAMES)
