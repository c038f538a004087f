"""Fuzz one reader with atheris: ``python -m tests.fuzz.fuzz TARGET [an option of libFuzzer's ...]``; see ``make fuzz``.

What it finds lands in ``.fuzz/``; ``python -m tests.fuzz.fuzz --keep TARGET FILE`` puts it into the corpus, where an
ordinary test replays it ever after.
"""

from __future__ import annotations

import sys
from pathlib import Path

FOUND = Path(".fuzz")
# Kernels are made of the bytecode of losses and optimizers, which stays as it is.
INSTRUMENTED = [
    "steepest.data",
    "steepest.comparison",
    "steepest.files",
    "steepest.cli",
    "steepest.estimators",
]


def main() -> None:
    if sys.argv[1] == "--keep":
        from tests.fuzz.seeds import keep

        sys.stdout.write(f"{keep(sys.argv[2], Path(sys.argv[3]).read_bytes())}\n")
        return
    import atheris

    import steepest.training.native  # noqa: F401 - kernels are made of its bytecode, which is to stay as it is

    with atheris.instrument_imports(include=["steepest"]):
        from tests.fuzz.seeds import CORPUS
        from tests.fuzz.targets import TARGETS

    name, *options = sys.argv[1:]
    own = FOUND / name
    own.mkdir(parents=True, exist_ok=True)
    limits = [
        "-timeout=30",
        "-rss_limit_mb=4096",
        "-malloc_limit_mb=2048",
        "-max_len=65536",
        "-close_fd_mask=3",
    ]
    atheris.Setup(
        [sys.argv[0], *limits, f"-artifact_prefix={FOUND}/{name}-", *options, str(own), str(CORPUS / name)],
        TARGETS[name],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
