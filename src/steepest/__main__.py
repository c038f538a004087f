"""``steepest`` and ``python -m steepest``: Ctrl-C is told in a sentence while the command is being loaded, too."""

from __future__ import annotations

import os
import sys

__all__ = ["start"]


def start() -> None:
    """Load the command, run it, and leave with its exit code."""
    try:
        from steepest.cli.main import entry
    except KeyboardInterrupt:
        sys.stderr.write("steepest: interrupted.\n")
        sys.stderr.flush()
        os._exit(130)
    entry()


if __name__ == "__main__":
    start()
