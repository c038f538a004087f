"""``python -m steepest``: the same as the ``steepest`` command."""

import sys

from steepest.cli.main import main

sys.exit(main())
