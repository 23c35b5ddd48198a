"""Any torch model to maps: model, method, layers, folding, class groups, views.

The package is also the public function: `pseudolabel.explain(model, image, classes=[...])`, whose
documentation stands in `pseudolabel.explain.public`. As soon as one of its modules is imported, a package
takes the place of a function of its name, so the package itself is what can be called.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """This package, called as its public function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from pseudolabel.explain.public import explain

        return explain(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        from pseudolabel.explain.public import explain

        return inspect.signature(explain)


sys.modules[__name__].__class__ = _CallablePackage
