"""`pl reference`: raw CAMs at feature size, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pseudolabel.commands.reference import reference
from pseudolabel.errors import DataError
from pseudolabel.runs import disk
from pseudolabel.scoring.reference_maps import ReferenceMaps
from tests.pseudolabel.commands.untrained import (
    NAMES,
    broken_copy,
    place_fixture,  # noqa: F401
    recipe,
)


def test_reference_holds_raw_cams_at_feature_size(place: Path, tmp_path: Path) -> None:
    from pseudolabel.classifier.checkpoint import load_classifier

    summary = reference(recipe(place), tmp_path / "reference.safetensors", workers=0, quiet=True)
    actual = ReferenceMaps(tmp_path / "reference.safetensors")
    assert summary.sha256 == actual.sha256 == disk.sha256_file(tmp_path / "reference.safetensors")
    assert (actual.threshold, actual.rule, summary.images, summary.maps) == (0.25, "own", 8, 12)
    assert actual.space.names == NAMES
    assert (
        actual.classifier == summary.classifier == disk.sha256_file(place / "run" / "classifier.safetensors")
    )
    assert [NAMES[label] for label in actual.classes["p2"]] == ["cat", "dog", "sheep"]
    maps = load_file(tmp_path / "reference.safetensors")
    network = load_classifier(place / "run").network
    pixels = torch.from_numpy(np.asarray(Image.open(place / "images" / "p1.png")).copy())
    with torch.no_grad():
        features = network.features((pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25)
        wanted = torch.einsum("cd,dhw->chw", network.head.weight[1:], features[0]).relu()
    torch.testing.assert_close(maps["p1"], wanted, rtol=1e-4, atol=1e-5 * float(wanted.max()))
    again = reference(recipe(place), tmp_path, workers=2, quiet=True)
    assert again.sha256 == summary.sha256, "the same bytes whatever the workers, into a folder too"


def test_reference_of_a_list_with_holes_is_refused(place: Path, tmp_path: Path) -> None:
    root = broken_copy(place, tmp_path / "data", p3=b"")
    with pytest.raises(DataError, match=r"^p3: "):
        reference(recipe(root), tmp_path / "reference.safetensors", workers=0, quiet=True)
    assert not (tmp_path / "reference.safetensors").exists()
