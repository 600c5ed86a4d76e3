"""What all tests share: one thread, the renderer that works everywhere, and a folder of their own to run in."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ["DIFFPOLICY_RENDERER"] = "software"
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job begins with Ctrl-C ignored


@pytest.fixture(scope="session", autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MuJoCo writes its log into the working folder: keep that out of the checkout."""
    before = os.getcwd()  # noqa: PTH109
    os.chdir(tmp_path_factory.mktemp("run"))
    yield
    os.chdir(before)
