"""Where the tests of a GPU's kernels run."""

from __future__ import annotations

import os

import pytest
import torch

# Set by test_gpu_interpreted.py for the tests it starts.
WITHOUT_A_CARD = os.environ.get("STEEPEST_TEST_TRITON") == "interpreter"


def gpu() -> str:
    """The device of a test of the Triton kernels, or the test is skipped."""
    if WITHOUT_A_CARD:
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU; test_gpu_interpreted.py runs this under Triton's interpreter")
    return "cuda"
