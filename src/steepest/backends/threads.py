"""The pool of threads that kernels are spread over; kernels release the interpreter lock."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["thread_pool"]

_pool: ThreadPoolExecutor | None = None


def thread_pool() -> ThreadPoolExecutor:
    """The process's pool, as many threads as torch uses when it is first asked for."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="steepest")
    return _pool


def _forget() -> None:
    global _pool
    _pool = None  # threads do not survive a fork


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
