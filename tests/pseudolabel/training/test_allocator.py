"""Kept pages: the same blocks taken again cost no page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
if sys.argv[1] == "keep":
    from pseudolabel.training.allocator import keep_pages
    assert keep_pages()
def use():
    return [np.ones(2**20 * (1 + index)) for index in range(4)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the switch")
def test_keeps_pages() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, check=True).stdout)
        for how in ("keep", "give")
    }
    # 3 times 80 MiB are 61,440 pages of 4 KiB, far fewer where the kernel hands out huge ones
    assert faults["give"] > 100
    assert faults["keep"] < faults["give"] / 10
