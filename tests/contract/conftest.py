"""The contract on a GPU's kernels: by Triton's interpreter where ``STEEPEST_TEST_TRITON`` says so, and on a card."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from steepest.backends import cuda_devices

from .gpu_device import WITHOUT_A_CARD


@pytest.fixture(scope="session", autouse=True)
def _on_tritons_interpreter() -> Iterator[None]:
    """The Triton kernels take the CPU's tensors, so that every test of the CPU's kernels is a test of them."""
    if not WITHOUT_A_CARD:
        yield
        return
    assert os.environ.get("TRITON_INTERPRET") == "1", "set TRITON_INTERPRET=1 too, before Triton is imported"
    cuda_devices.DEVICES.add("cpu")
    yield
    cuda_devices.DEVICES.discard("cpu")
