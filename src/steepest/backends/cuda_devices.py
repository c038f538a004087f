"""Whether a tensor's device runs Triton's kernels; Triton itself is imported when one is needed."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

__all__ = ["DEVICES", "runs_on"]

DEVICES = {"cuda"}  # torch's name for NVIDIA's and AMD's; tests of Triton's interpreter add the CPU


# Triton comes with torch's CUDA and ROCm builds. A constant, for torch's tracer warns of functions with a memory.
_HAS_TRITON = find_spec("triton") is not None


def runs_on(tensor: Tensor) -> bool:
    """Whether the Triton kernels take a tensor of this device."""
    if tensor.is_cpu and "cpu" not in DEVICES:  # nearly always; a device's name takes longer to ask for
        return False
    return tensor.device.type in DEVICES and _HAS_TRITON
