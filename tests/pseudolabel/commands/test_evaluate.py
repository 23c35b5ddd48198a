"""`evaluate`: every listed image counted once, faults named, figures as the oracle counts them."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pseudolabel.commands.evaluate import evaluate
from pseudolabel.errors import DataError, UsageError
from pseudolabel.masks import write_mask
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.records import Dataset, ImageRecord, LabelSpace
from pseudolabel.runs import disk, layout
from tests.golden.worked_example import ABSTAINING, PREDICTION, REGION, TRUTH
from tests.oracles import metrics as oracles
from tests.pseudolabel.finished_run import seal

NAMES = ("background", "cat", "dog")
IDS = ("a", "b", "007", "7", "e")
RECIPE = {
    "data": {"reader": "voc", "root": "nowhere", "labels": "csv"},
    "classifier": {"checkpoint": "nowhere"},
    "maps": [{"method": {"name": "cam"}, "refine": [{"name": "normalise"}]}],
    "background": {"name": "constant", "threshold": 0.2},
}


@dataclass(frozen=True)
class Given:
    """A reader step that gives a data set made by the test."""

    dataset: Dataset
    component_name: str = "given"
    params: None = None

    @property
    def component(self):
        return self

    def run(self, params):
        return self.dataset

    def parameters(self):
        return {"split": "val"}


class Folder:
    """Five images with truth, masks and parts on disk, and as arrays."""

    def __init__(self, root):
        random = np.random.default_rng(0)
        self.root, self.truth, self.masks, self.parts = root, {}, {}, {}
        for item in IDS:
            shape = tuple(random.integers(5, 12, size=2))
            self.truth[item] = random.choice([0, 1, 2, 255], size=shape).astype(np.uint8)
            self.masks[item] = random.choice([0, 1, 2, 255], size=shape).astype(np.uint8)
            self.parts[item] = random.choice([0, 1, 2], size=shape).astype(np.uint8)
            for what in ("truth", "masks", "parts"):
                write_mask(root / what / f"{item}.png", getattr(self, what)[item])
        (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
        self.maps = {item: (random.random((2, 3, 4)).astype(np.float32) * 7) for item in IDS}
        self.reference()

    def reference(self, leave_out=(), rule="own", names=NAMES):
        save_file(
            {item: torch.from_numpy(m) for item, m in self.maps.items() if item not in leave_out},
            self.root / "reference.safetensors",
            {
                "ids": json.dumps({item: [1, 2] for item in IDS if item not in leave_out}),
                "threshold": "0.5",
                "rule": rule,
                "classifier": "0" * 64,
                "classes": json.dumps(names),
            },
        )

    def step(self, order=IDS, without=(), parts=False):
        records = tuple(
            ImageRecord(
                item,
                self.root / "x.jpg",
                (1,),
                None if item in without else self.root / "truth" / f"{item}.png",
            )
            for item in order
        )
        return Given(Dataset(records, LabelSpace(NAMES), self.root / "parts" if parts else None))

    def names(self):
        path = self.root / "names.txt"
        path.write_text("\n".join(NAMES))
        return path

    def score(self, **options):
        given = {"masks": self.root / "masks", "truth": self.root / "truth", "quiet": True}
        return evaluate(**{**given, "classes": self.root / "classes.txt", **options}).as_dict()

    def score_reader(self, step=None, **options):
        return evaluate(masks=self.root / "masks", data=step or self.step(), quiet=True, **options).as_dict()


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_equals_the_oracle_over_the_set(folder):
    evaluation = folder.score_reader(
        folder.step(parts=True), reference=folder.root / "reference.safetensors", workers=3
    )
    counts = {"whole": 0, "dr": 0, "ndr": 0, "part": 0, "body": 0}
    for item in IDS:
        truth, mask = folder.truth[item], folder.masks[item]
        full = [oracles.bilinear(m, *truth.shape) for m in folder.maps[item]]
        region = oracles.discriminative(truth, full, (1, 2), 0.5, "own")
        counts["whole"] += np.array(oracles.confusion(truth, mask, 3))
        for name, where in (
            ("dr", region),
            ("ndr", ~region),
            ("part", folder.parts[item] == 1),
            ("body", folder.parts[item] == 2),
        ):
            counts[name] += np.array(oracles.masked(truth, mask, where, 3))

    def recall(name):
        return oracles.nanmean([counts[name][c, c] / counts[name][c].sum() for c in (1, 2)])

    assert evaluation["images"] == 5
    assert evaluation["miou"] == pytest.approx(
        oracles.miou(counts["whole"].tolist(), 3, "background", range(3))
    )
    assert evaluation["dr_recall"] == pytest.approx(recall("dr"))
    assert evaluation["ndr_recall"] == pytest.approx(recall("ndr"))
    assert evaluation["parts"]["part_recall"] == pytest.approx(recall("part"))
    assert evaluation["parts"]["body_recall"] == pytest.approx(recall("body"))
    assert evaluation["dr_recall"] != evaluation["ndr_recall"]
    assert evaluation["split"] == "val"
    assert evaluation["reading_of_ignore"] == "background"
    assert evaluation["readings"]["wrong"]["confusion"] == counts["whole"].tolist()
    assert evaluation["miou"] == evaluation["readings"]["background"]["miou"]
    low, high = evaluation["miou_interval"]["low"], evaluation["miou_interval"]["high"]
    assert low < evaluation["miou"] < high


@pytest.mark.parametrize("prediction", [PREDICTION, ABSTAINING])
def test_worked_example_through_files(tmp_path, prediction):
    write_mask(tmp_path / "truth" / "x.png", TRUTH)
    write_mask(tmp_path / "masks" / "x.png", prediction)
    (tmp_path / "classes.txt").write_text("background\ncat\ndog\nhorse\n")
    # A reference of the image's own size is taken as it is, so the region is the example's.
    maps = np.stack([np.where(c == TRUTH, REGION * 1.0, 0.1) for c in (1, 2)]).astype(np.float32)
    meta = {"ids": '{"x": [1, 2]}', "threshold": "0.25", "rule": "own", "classifier": "c" * 64}
    meta["classes"] = json.dumps([*NAMES, "horse"])
    save_file({"x": torch.from_numpy(maps)}, tmp_path / "reference.safetensors", meta)
    evaluation = evaluate(
        masks=tmp_path / "masks",
        truth=tmp_path / "truth",
        classes=tmp_path / "classes.txt",
        reference=tmp_path / "reference.safetensors",
        quiet=True,
    ).as_dict()
    wanted = (0.583333, 0.875, 0.416667) if prediction is PREDICTION else (0.522436, 0.75, 0.416667)
    assert (evaluation["miou"], evaluation["dr_recall"], evaluation["ndr_recall"]) == pytest.approx(
        wanted, abs=5e-7
    )
    assert evaluation["classes_averaged"] == 3
    assert evaluation["iou"]["horse"] is None
    assert evaluation["reference"]["maps"] == "reference.safetensors"
    assert evaluation["reference"]["threshold"] == 0.25
    assert len(evaluation["reference"]["sha256"]) == 64
    stored = json.loads((tmp_path / "masks" / "evaluation.json").read_text())
    assert stored == json.loads(json.dumps(evaluation))
    contract = "images miou classes_averaged iou dr_recall ndr_recall fg_precision fg_recall fg_hit coverage"
    contract += " confusion reading_of_ignore reference readings legacy parts labels"
    assert set(contract.split()) <= set(stored)


def test_without_a_reference_regions_are_undefined_and_a_hint_says_how(folder, capsys):
    evaluation = folder.score(quiet=False, out=folder.root / "result.json")
    assert (folder.root / "result.json").is_file()
    assert (
        evaluation["reference"]
        is evaluation["dr_recall"]
        is evaluation["ndr_recall"]
        is evaluation["parts"]
        is None
    )
    assert set(evaluation["legacy"].values()) == {None}
    assert "`pl reference RECIPE -o reference.safetensors`" in capsys.readouterr().err


def test_list_order_and_workers_change_nothing(folder):
    maps = folder.root / "reference.safetensors"
    first = folder.score_reader(reference=maps, workers=1)
    other = folder.score_reader(folder.step(IDS[::-1]), reference=maps, workers=4)
    assert first == other
    half = folder.score_reader(folder.step(IDS[:2]))
    rest = folder.score_reader(folder.step(IDS[2:]))
    wrong = [np.array(part["readings"]["wrong"]["confusion"]) for part in (half, rest, first)]
    np.testing.assert_array_equal(wrong[0] + wrong[1], wrong[2])


@pytest.mark.parametrize("how", ["folder", "reader"])
def test_a_missing_mask_is_refused(folder, how):
    (folder.root / "masks" / "007.png").unlink()
    with pytest.raises(DataError, match="1 of 5 images have no mask: 007;"):
        folder.score() if how == "folder" else folder.score_reader()
    assert not (folder.root / "masks" / "evaluation.json").exists()


def test_an_image_listed_twice_is_refused(folder):
    with pytest.raises(DataError, match="b: stands twice"):
        folder.score_reader(folder.step((*IDS, "b")))
    (folder.root / "list.txt").write_text("a\nb\na\n")
    with pytest.raises(DataError, match="1 ids are listed twice: a"):
        folder.score(listing=folder.root / "list.txt")


def test_every_faulty_mask_is_counted_and_the_first_named(folder):
    write_mask(folder.root / "masks" / "a.png", np.zeros((2, 3), np.uint8))
    write_mask(folder.root / "masks" / "b.png", np.full(folder.truth["b"].shape, 9, np.uint8))
    (folder.root / "masks" / "e.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="3 of 5 images cannot be scored") as caught:
        folder.score()
    text = str(caught.value)
    assert "a.png: mask is 2 x 3, its truth" in text
    assert "b.png: mask holds 9 (" in text
    assert "e.png" in text


def test_truth_outside_the_classes_names_the_truth(folder):
    (folder.root / "classes.txt").write_text("background\ncat\n")
    with pytest.raises(DataError, match=r"(masks|truth)/007\.png: mask holds 2 \("):
        folder.score()


def test_masks_without_truth_need_a_list(folder):
    (folder.root / "truth" / "7.png").unlink()
    with pytest.raises(DataError, match=r"1 masks have no ground truth in .*: 7; name the images"):
        folder.score()
    (folder.root / "list.txt").write_text("a\n007\n\n")
    assert folder.score(listing=folder.root / "list.txt")["images"] == 2
    (folder.root / "list.txt").write_text("a\n7\n")
    with pytest.raises(DataError, match="1 of 2 listed images have no ground truth: 7"):
        folder.score(listing=folder.root / "list.txt")


def test_data_without_truth_is_refused(folder):
    with pytest.raises(DataError, match="2 of 5 images have no ground truth mask: 7, e"):
        folder.score_reader(folder.step(without=("7", "e")))
    with pytest.raises(DataError, match="the data set has no ground truth"):
        folder.score_reader(folder.step(without=IDS))


def test_a_reference_that_does_not_fit_is_refused(folder):
    maps = folder.root / "reference.safetensors"
    folder.reference(leave_out=("b", "7"))
    with pytest.raises(DataError, match="2 images have no reference maps: b, 7"):
        folder.score_reader(reference=maps)
    folder.reference(rule="mine")
    with pytest.raises(DataError, match="rule 'mine'"):
        folder.score_reader(reference=maps)
    maps.write_bytes(b"{}")
    with pytest.raises(DataError, match="holds no reference maps"):
        folder.score_reader(reference=maps)
    maps.unlink()
    with pytest.raises(DataError, match="make them with `pl reference"):
        folder.score_reader(reference=maps)


@pytest.mark.parametrize(
    ("names", "difference"),
    [
        (("background", "dog", "cat"), "id 1 is 'dog', wanted 'cat'"),
        (("background", "cat", "dog", "cow"), "4 names, wanted 3"),
    ],
)
def test_a_reference_of_other_classes_is_refused(folder, names, difference):
    folder.reference(names=names)
    with pytest.raises(DataError, match=f"its classes are not those of the data: {difference}"):
        folder.score_reader(reference=folder.root / "reference.safetensors")


def test_a_reference_of_another_classifier_is_refused_unless_asked_for(folder):
    reference, run = folder.root / "reference.safetensors", seal(folder.root, IDS, NAMES)
    given = {"data": folder.step(), "reference": reference, "quiet": True}
    disk.write_text(run / "recipe.yaml", dump_recipe(load_recipe(RECIPE, GenerateRecipe)))
    assert evaluate(run, **given).dr_recall is not None, "a run that does not say its classifier"
    disk.write_json(run / "fingerprint.json", {"kind": "generate", "classifier": "1" * 64})
    with pytest.raises(DataError, match=r"made by the classifier 0{12}.* by 1{12}; `pl reference"):
        evaluate(run, **given)
    scored = evaluate(run, other_classifier=True, **given)
    assert scored.reference["classifier"] == "0" * 64
    disk.write_json(run / "fingerprint.json", {"kind": "generate", "classifier": "0" * 64})
    assert evaluate(run, **given).dr_recall == scored.dr_recall


def test_part_masks_that_do_not_fit_are_refused(folder):
    (folder.root / "parts" / "a.png").unlink()
    write_mask(folder.root / "parts" / "b.png", np.zeros((1, 1), np.uint8))
    with pytest.raises(DataError, match=r"2 of 5 images cannot be scored.*b\.png: part mask is 1 x 1"):
        folder.score_reader(folder.step(parts=True))


def test_a_run_of_other_classes_is_refused(folder):
    seal(folder.root, IDS, NAMES)
    (folder.root / "classes.txt").write_text("background\ndog\ncat\n")
    with pytest.raises(DataError, match=r"classes\.txt: its classes are not those of the data"):
        evaluate(folder.root, truth=folder.root / "truth", classes=folder.names(), quiet=True)
    (folder.root / "classes.txt").write_text("\n".join(NAMES))
    evaluation = evaluate(folder.root, truth=folder.root / "truth", classes=folder.names(), quiet=True)
    assert evaluation.miou == folder.score()["miou"]
    assert json.loads((folder.root / "evaluation.json").read_text())["images"] == 5


def test_average_over_and_limit(folder):
    evaluation = folder.score(average_over=("background", "dog"), limit=3)
    assert evaluation["images"] == 3
    assert evaluation["average_over"] == ["background", "dog"]
    assert evaluation["classes_averaged"] == 2
    assert evaluation["miou"] == pytest.approx(
        (evaluation["iou"]["background"] + evaluation["iou"]["dog"]) / 2
    )
    with pytest.raises(UsageError, match="'dgo' is not a class; did you mean 'dog'"):
        folder.score(average_over=("dgo",))


def test_nothing_labelled_is_null_and_not_nan(folder):
    for item in IDS:
        write_mask(folder.root / "truth" / f"{item}.png", np.full(folder.truth[item].shape, 255, np.uint8))
    evaluation = folder.score()
    assert evaluation["miou"] is None
    assert evaluation["classes_averaged"] == 0
    text = (folder.root / "masks" / "evaluation.json").read_text()
    assert "NaN" not in text
    assert not any(isinstance(v, float) and math.isnan(v) for v in evaluation.values())


def test_arguments_that_do_not_fit_together_are_refused(folder):
    with pytest.raises(UsageError, match="give a run, or --masks"):
        evaluate()
    with pytest.raises(UsageError, match="--masks needs --truth"):
        evaluate(masks=folder.root / "masks")
    with pytest.raises(UsageError, match="--truth needs --classes"):
        evaluate(masks=folder.root / "masks", truth=folder.root / "truth")
    with pytest.raises(UsageError, match=r"no recipe\.yaml"):
        evaluate(folder.root)


def test_a_run_is_scored_on_what_it_was_asked_for(folder, capsys):
    """Its list and its limit; an image that it could not do is missing, not left out."""
    seal(folder.root, IDS[:3], NAMES)
    given = {"truth": folder.root / "truth", "classes": folder.names()}
    assert evaluate(folder.root, **given).as_dict() == {
        **folder.score(limit=3, listing=list_of(folder, IDS)),
        "labels": None,
    }
    assert "was asked for 3 of the 5 listed images" in capsys.readouterr().err
    assert evaluate(folder.root, **given, limit=2, quiet=True).images == 2
    disk.write_json_lines(folder.root / layout.PROBLEMS, [{"file": "e", "code": "unreadable"}])
    (folder.root / "masks" / "e.png").unlink()
    with pytest.raises(DataError, match="1 of 4 images have no mask: e; a score covers every listed image"):
        evaluate(folder.root, **given, quiet=True)


def list_of(folder, ids):
    path = folder.root / "list.txt"
    path.write_text("\n".join(ids))
    return path
