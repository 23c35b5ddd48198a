"""The suite over every importer; tests/third_party tries it on a planted one."""

from __future__ import annotations

from pseudolabel.contracts.importers import *  # noqa: F403
