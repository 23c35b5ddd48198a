"""The classifier's file: tensors, and all that is needed to use them, in one safetensors file.

Metadata: format and its version, class names in order, backbone, output stride, normalisation, recipe,
digest of what decided the weights. Everything is compared before a tensor is copied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pseudolabel.classifier.network import Classifier
from pseudolabel.errors import DataError, NumericError
from pseudolabel.records import LabelSpace
from pseudolabel.runs import disk
from pseudolabel.runs.tensors import packed

FILE = "classifier.safetensors"
FORMAT = "pseudolabel.classifier"
VERSION = 1


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier ready for use.

    Attributes:
        network: in evaluation mode, on the CPU.
        space: class names.
        mean, std: RGB in 0..1.
        backbone, output_stride: see `Classifier`.
        sha256: of the file; of a published network all that decides what it says.
        recipe: the resolved recipe of its training, empty for a published one.
        fingerprint: digest of what decided the weights.
        known: ascending class ids that its outputs stand for; None for all of them.
        groups: raw logits, counted from 0, of each known class; None where raw logit c - 1 is class c.
        source: a line on where the weights came from, empty for a trained one.
    """

    network: nn.Module
    space: LabelSpace
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    backbone: str
    output_stride: int
    sha256: str
    recipe: dict[str, Any]
    fingerprint: str
    known: tuple[int, ...] | None = None
    groups: tuple[tuple[int, ...], ...] | None = None
    source: str = ""


def save_classifier(
    path: Path,
    network: Classifier,
    space: LabelSpace,
    mean: Sequence[float],
    std: Sequence[float],
    recipe: Mapping[str, Any],
    fingerprint: str,
) -> None:
    """Write the file whole.

    Raises:
        NumericError: a tensor is not finite; what was there stays.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NumericError(f"{path.name}: {name} is not finite; it was not written, lower optimizer.lr")
    metadata = {
        "format": FORMAT,
        "format_version": str(VERSION),
        "classes": json.dumps(space.names),
        "backbone": network.name,
        "output_stride": str(network.output_stride),
        "mean": json.dumps(list(mean)),
        "std": json.dumps(list(std)),
        "recipe": json.dumps(recipe, sort_keys=True),
        "fingerprint": fingerprint,
    }
    disk.write_bytes(path, packed(tensors, metadata))


def load_classifier(path: Path | str, expect: LabelSpace | None = None) -> LoadedClassifier:
    """Read a classifier.

    Args:
        path: a run of `pl train`, or its classifier.safetensors.
        expect: the classes of the data it shall serve.

    Raises:
        DataError: missing, damaged, of a newer format, of another network, or of other classes than
            expected (both lists and the first difference are told).
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / FILE
    if not file.is_file():
        run = file.parent if file.suffix == ".safetensors" else file
        raise DataError(f"{file}: no such classifier; train one with `pl train RECIPE -o {run}`")
    metadata, tensors = _read(file)
    space = LabelSpace(tuple(_json(file, metadata, "classes", list)))
    if expect is not None:
        _compare(file, space, expect)
    backbone, stride = metadata["backbone"], int(metadata["output_stride"])
    mean, std = (_json(file, metadata, key, list) for key in ("mean", "std"))
    with torch.random.fork_rng(devices=[]):  # the start values are overwritten; nobody's draws move
        network = Classifier(backbone, space.foreground, output_stride=stride)
    _check_tensors(file, network.state_dict(), tensors)
    network.load_state_dict(tensors, strict=True)
    network.eval()
    return LoadedClassifier(
        network,
        space,
        (mean[0], mean[1], mean[2]),
        (std[0], std[1], std[2]),
        backbone,
        stride,
        disk.sha256_file(file),
        _json(file, metadata, "recipe", dict),
        metadata["fingerprint"],
    )


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata, checked for format and version, and tensors."""
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            metadata = dict(opened.metadata() or {})
            if metadata.get("format") != FORMAT:
                raise DataError(f"{file}: not a classifier of `pl train`; give its run or {FILE}")
            version = metadata.get("format_version", "")
            if version != str(VERSION):
                raise DataError(
                    f"{file}: format version {version}, this program reads {VERSION}; "
                    "install the version that wrote it or train again"
                )
            missing = {"classes", "backbone", "output_stride", "mean", "std", "recipe", "fingerprint"}
            if missing := missing - metadata.keys():
                raise DataError(f"{file}: lacks {', '.join(sorted(missing))}; train again")
            if not metadata["output_stride"].isdigit():
                raise DataError(f"{file}: output_stride is damaged; train again")
            return metadata, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file}: damaged ({str(error).splitlines()[0]}); train or copy it again") from error


def _json(file: Path, metadata: Mapping[str, str], key: str, kind: type) -> Any:
    try:
        value = json.loads(metadata[key])
    except ValueError:
        value = None
    three = key not in ("mean", "std") or (isinstance(value, list) and len(value) == 3)
    if not isinstance(value, kind) or not three:
        raise DataError(f"{file}: {key} is damaged; train again")
    return value


def _compare(file: Path, own: LabelSpace, wanted: LabelSpace) -> None:
    if own.names == wanted.names:
        return
    pairs = zip(own.names, wanted.names, strict=False)
    shorter = min(len(own.names), len(wanted.names))
    first = next((index for index, (a, b) in enumerate(pairs) if a != b), shorter)
    own_name, wanted_name = (
        names[first] if first < len(names) else "nothing" for names in (own.names, wanted.names)
    )
    raise DataError(
        f"{file}: classes differ from the data's: first at id {first}, {own_name!r} against {wanted_name!r}; "
        f"the classifier has {', '.join(own.names)}; the data has {', '.join(wanted.names)}; "
        "take the classifier of this class list"
    )


def _check_tensors(file: Path, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name in own:
        if name not in tensors:
            raise DataError(f"{file}: tensor {name!r} is missing; train or copy it again")
    for name, tensor in tensors.items():
        if name not in own:
            raise DataError(f"{file}: tensor {name!r} is not one of {file.name}'s network; train again")
        if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
            raise DataError(
                f"{file}: tensor {name!r} is {tuple(tensor.shape)} {tensor.dtype}, "
                f"the network's {tuple(own[name].shape)} {own[name].dtype}; train again"
            )
