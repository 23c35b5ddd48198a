"""Let torchvision import beside a CPU build of torch, or say what is wrong with the pair.

torchvision's wheel carries native operators that need CUDA libraries. Beside a CPU build of torch they
do not load, and torchvision then fails at import, since it registers shape functions for two operators
that were never defined. Defining their schemas is enough for everything used here; `nms`, `roi_align`
and the native decoders stay away. The first try comes before the definition, so that a machine with a
whole torchvision is untouched.
"""

from typing import Any

import torch

from pseudolabel.errors import MachineError

_LIBRARY: list[Any] = []  # the definition lives as long as its library object


def _import() -> None:
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise MachineError(_remedy(error)) from error
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARY.append(library)
        try:
            import torchvision  # noqa: F401
        except (RuntimeError, ImportError, AttributeError) as again:
            raise MachineError(_remedy(again)) from again
    except ImportError as error:
        raise MachineError(_remedy(error)) from error


def _remedy(error: Exception) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("torchvision")
    except PackageNotFoundError:
        installed = "missing"
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"torch {torch.__version__} and torchvision {installed} do not fit together ({cause}); "
        "install a pair of one release, for instance torch==2.13.0 torchvision==0.28.0"
    )


_import()
