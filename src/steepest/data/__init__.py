"""Intake: from whatever the user hands over to encoded arrays."""

from steepest.data.encoding import Encoding
from steepest.data.prepare import Prepared, prepare
from steepest.data.read import read
from steepest.data.table import Table

__all__ = ["Encoding", "Prepared", "Table", "prepare", "read"]
