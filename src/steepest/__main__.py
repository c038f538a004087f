"""``python -m steepest``: the same as the ``steepest`` command."""

from steepest.cli.main import entry

if __name__ == "__main__":
    entry()
