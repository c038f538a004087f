"""The contract held by the Triton kernels, without a card: under Triton's interpreter, in a process of its own.

The interpreter has to be chosen before Triton is imported, so pytest runs once more, and there every test of the CPU's
kernels is one of the Triton kernels (see ``conftest.py``). ``STEEPEST_TEST_TRITON_FILES=all`` runs all files about
losses.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .gpu_device import WITHOUT_A_CARD

HERE = Path(__file__).parent
ALL = os.environ.get("STEEPEST_TEST_TRITON_FILES") == "all"
FILES = {
    "test_loss_truth.py": "cuda and not reductions" if not ALL else "not reference",
    "test_gpu_losses.py": "",
    "test_gpu_perceptrons.py": "",
    "test_gpu_population.py": "",
    "test_gpu_optimizers.py": "",
    "test_losses_of_torch.py": "compiles",
    "test_loss_switches.py": "",
    "test_softmax_layouts.py": "not reference" if ALL else "probabilities-float64-65",
}
# Of the CPU's kernels alone: how many rows of the logits there are at a time, that two losses share every rounding, and
# targets that are looked at.
OF_THE_CPU = "not never_whole and not to_the_bit and not (refused and hinge)"
MORE = {
    "test_cross_entropy.py": "",
    "test_losses_robust.py": f"not reference and not long and {OF_THE_CPU}",
    "test_losses_imbalance.py": f"not reference and not long and {OF_THE_CPU}",
    "test_losses_of_torch.py": f"not reference and not long and {OF_THE_CPU}",
}
CHOSEN = FILES | (MORE if ALL else {})


@pytest.mark.skipif(WITHOUT_A_CARD, reason="under the interpreter already: it would start itself again")
@pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton comes with torch's CUDA and ROCm builds, and is not here"
)
@pytest.mark.parametrize("file", CHOSEN)
def test_the_contract_by_the_interpreter(file: str) -> None:
    # numpy, which computes in the interpreter's place, warns of the infinities that formulas meet on purpose.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    done = subprocess.run(
        [*command, "-k", CHOSEN[file], str(HERE / file)],
        env={**os.environ, "TRITON_INTERPRET": "1", "STEEPEST_TEST_TRITON": "interpreter"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
