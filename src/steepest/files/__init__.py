"""Files as all of the package reads and writes them: whole or not at all, by one process at a time, within bounds."""

from steepest.files.checksums import SUMS, check_sums, write_sums
from steepest.files.lock import held
from steepest.files.read import MOST_BYTES, parse_json, read_bytes, regular
from steepest.files.write import encoded, write_file

__all__ = [
    "MOST_BYTES",
    "SUMS",
    "check_sums",
    "encoded",
    "held",
    "parse_json",
    "read_bytes",
    "regular",
    "write_file",
    "write_sums",
]
