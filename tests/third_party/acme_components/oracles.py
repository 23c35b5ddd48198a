"""The same things over again, slowly, in NumPy and float64; the contract suites compare."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image, ImageDraw


def strongest_votes(network, image, label, top):
    features = network.features(image)
    out = np.zeros(features.shape[1:])
    for y, x in np.ndindex(out.shape):
        votes = sorted(
            weight * value for weight, value in zip(network.weight[label - 1], features[:, y, x], strict=True)
        )
        loudest = votes[-top:]
        out[y, x] = max(sum(loudest) / len(loudest), 0.0)
    return out


def gamma(ids, values, image, exponent):
    return np.exp(exponent * np.log(np.maximum(values, 1e-300)))


def margin(ids, values, image, margin):
    background = np.empty(values.shape[1:])
    for y, x in np.ndindex(background.shape):
        behind = sorted(values[:, y, x])[-2] if len(ids) > 1 else 0.0
        background[y, x] = min(1.0, behind + margin)
    return np.stack([background, *values])


def raw_ids(out, ignore):
    masks = {path.stem: np.load(path) for path in out.glob("*.npy")}
    names = json.loads((out / "classes.json").read_text())
    if ignore == 255:
        return names, masks
    return names, masks, lambda mask: np.where(mask == 255, ignore, mask)


def raw_folder(folder):
    names, rows = ["background", "cat", "dog"], []
    random = np.random.default_rng(0)
    for item, labels in (("a b", (1,)), ("c", (1, 2)), ("ü", (2,))):
        mask = random.choice([0, *labels, 255], size=(5, 7)).astype(np.uint8)
        scores = random.random((len(labels), 5, 7)).astype(np.float32)
        np.save(folder / f"{item}.npy", np.where(mask == 255, 9, mask).astype(np.uint8))
        np.savez(folder / f"{item}.maps.npz", ids=np.array(labels), scores=scores)
        rows.append((item, None, mask, [(labels, scores)]))
    (folder / "classes.json").write_text(json.dumps(names))
    return folder, {"ignore": 9, "maps": True}, lambda: (names, rows)


def polygons(folder):
    shapes = {
        "b": [("dog", [(1, 1), (9, 1), (9, 6), (1, 6)])],
        "a": [("dog", [(0, 0), (6, 0), (0, 6)]), ("cat", [(3, 3), (10, 3), (10, 8), (3, 8)])],
    }
    rows, size = [], (12, 15)
    for item, objects in shapes.items():
        drawn = Image.new("L", (size[1], size[0]))
        for name, points in objects:
            ImageDraw.Draw(drawn).polygon(points, fill=["cat", "dog"].index(name) + 1)
        mask = np.array(drawn)
        Image.new("RGB", (size[1], size[0]), (40, 80, 120)).save(folder / f"{item}.png")
        rows.append((item, tuple(sorted(set(mask.ravel().tolist()) - {0})), mask))
    (folder / "polygons.json").write_text(json.dumps({"classes": ["cat", "dog"], "images": shapes}))
    return {"root": str(folder)}, lambda: (("background", "cat", "dog"), rows)
