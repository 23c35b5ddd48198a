"""What the server of worker processes imports, and nobody else: forks find the work's modules there.

Signals are for the process that asked for the workers: were the server to die of one that went to the whole
group (a batch system's, a closed terminal's), its forks would count as dead before their last job is done.
It ends with that process.
"""

from __future__ import annotations

import signal

for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, signal.SIG_IGN)

import torch  # noqa: E402, F401

import pseudolabel.pipeline.postprocessing  # noqa: E402
import pseudolabel.runs.maps  # noqa: E402, F401
