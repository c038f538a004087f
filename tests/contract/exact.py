"""256-bit numbers and the vocabulary over them, as outsiders' tests have them too."""

from steepest.testing.exact import INF, NAN, ONE, VOCABULARY, ZERO, mp

__all__ = ["INF", "NAN", "ONE", "VOCABULARY", "ZERO", "mp"]
