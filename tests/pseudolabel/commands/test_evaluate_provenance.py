"""`evaluate` says which images, labels, threshold and versions its figures are of."""

import json

from pseudolabel.commands.evaluate import evaluate
from pseudolabel.figures.text import FORMS
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.runs import disk
from tests.pseudolabel.commands.test_evaluate import IDS, NAMES, RECIPE, Folder
from tests.pseudolabel.finished_run import seal


def test_says_exactly_what_was_scored(tmp_path):
    folder = Folder(tmp_path)
    plain = folder.score()
    assert (plain["reader"], plain["split"], plain["checkpoint"], plain["threshold"]) == (
        "folder",
        None,
        None,
        None,
    )
    run = seal(folder.root, IDS, NAMES)
    steps = {"postprocess": [{"name": "small_regions", "share": 0.1}]}
    disk.write_text(run / "recipe.yaml", dump_recipe(load_recipe({**RECIPE, **steps}, GenerateRecipe)))
    disk.write_json(run / "fingerprint.json", {"kind": "generate", "classifier": "1" * 64})
    disk.write_json(run / "summary.json", {"labels": "given", "labels_from": "masks"})
    scored = evaluate(run, data=folder.step(), limit=3, quiet=True)
    stored = json.loads((run / "evaluation.json").read_text())
    assert stored["image_list"] == {"images": 3, "listed": 5, "sha256": disk.digest(sorted(IDS[:3]))}
    assert (stored["reader"], stored["split"]) == ("given", "val")
    assert (stored["labels"], stored["labels_from"]) == ("given", "masks")
    assert stored["checkpoint"] == {"kind": "classifier", "sha256": "1" * 64}
    assert stored["threshold"] == {"key": "background.threshold", "value": 0.2, "picked": None}
    assert stored["postprocess"] == [{"name": "small_regions", "share": 0.1, "to": "surrounding"}]
    assert {"pseudolabel", "torch", "numpy", "python"} <= stored["versions"].keys()
    shown = FORMS["evaluation"](scored.as_dict())
    assert "scored: given, split val, of 5 listed" in shown
    assert "labels: given (masks)" in shown
    swept = {"key": "background.threshold", "best": {"threshold": 0.2}, "split": "val", "images": 9}
    disk.write_json(run / "sweep.json", {**swept, "picked": "largest mIoU on these images"})
    picked = evaluate(run, data=folder.step(), quiet=True).threshold["picked"]
    assert picked == {
        "by": "pl sweep",
        "split": "val",
        "images": 9,
        "picked": "largest mIoU on these images",
    }
    disk.write_json(run / "sweep.json", {**swept, "best": {"threshold": 0.3}, "picked": "other"})
    assert evaluate(run, data=folder.step(), quiet=True).threshold["picked"] is None
