"""Trainings under torchrun, one after another: `worker.py JOBS`, a JSON list of what `fit_module` takes."""

from __future__ import annotations

import json
import sys

import torch

from steepest.comparison.fit_module import fit_module

if __name__ == "__main__":
    import torch.distributed as dist

    torch.set_num_threads(1)
    with open(sys.argv[1], encoding="utf-8") as file:
        jobs = json.load(file)
    for job in jobs:
        fit_module(**job)  # each joins the others anew
        assert not dist.is_initialized()
