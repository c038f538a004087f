"""What fuzzing begins with: files as steepest writes them. ``python -m tests.fuzz.seeds`` puts them into the corpus."""

from __future__ import annotations

import gzip
import hashlib
import io
import signal
import struct
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from tests.comparison.test_resume import StopsAfter

import steepest
from steepest.comparison.journal import _FIRST_LINE, _FRAME

CORPUS = Path(__file__).parent / "corpus"

CSV = "size,colour,sold,price\n" + "".join(
    f"{number * 0.5},{['red', 'green', 'blue'][number % 3]},2024-0{number % 9 + 1}-17,{number * number % 17 + 0.5}\n"
    for number in range(24)
)


@cache
def made() -> dict[str, bytes]:
    """A file of every kind, by what it is called in the targets."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 1))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        table = place / "table.csv"
        table.write_text(CSV, encoding="utf-8")
        model = steepest.fit(table, "price", loss="mse", lr=0.01, batch_size=8, hidden=(2,), max_epochs=1)
        model.save(place / "model")
        options = {"hidden": (), "losses": ["mse"], "optimizers": ["sgd"], "max_epochs": 1, "splits": 1}
        steepest.compare((x, x[:, 0]), out=place / "out", **options)
        stops = StopsAfter(1, signal.SIGINT)
        steepest.compare((x, x[:, 0]), out=place / "half", progress=stops, num_threads=1, **options)
        journal = (place / "half" / "unfinished" / "journal").read_bytes()
        length, _ = _FRAME.unpack_from(journal, len(_FIRST_LINE))
        start = len(_FIRST_LINE) + _FRAME.size
        parquet = io.BytesIO()
        pl.read_csv(table, try_parse_dates=True).write_parquet(parquet)
        out = place / "out"
        return {
            "csv": CSV.encode(),
            "tsv": CSV.replace(",", "\t").encode(),
            "gzipped": gzip.compress(CSV.encode(), mtime=0),
            "parquet": parquet.getvalue(),
            "column": "1\n-0\n1e400\n0x1f\n2024-02-30\n12:30\n1,5\n\ntrue\nNaN\n\u0661\n=A1\n".encode(),
            "model_manifest": (place / "model" / "manifest.json").read_bytes(),
            "weights": (place / "model" / "model.safetensors").read_bytes(),
            "model_weights": struct.pack("<Q", 60)
            + b'{"w":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}'[:60],
            "plan": (out / "plan.json").read_bytes(),
            "question": (out / "question.json").read_bytes(),
            "sums": (place / "half" / "unfinished" / "SHA256SUMS").read_bytes(),
            "journal": journal[start : start + length],
            "finished": b'{"format": 1, "status": "complete"}',
            "verdict": (out / "verdict.json").read_bytes(),
            "earlier": (out / "runs.parquet").read_bytes(),
            "words": b"full,1,32",
        }


def keep(target: str, data: bytes) -> Path:
    """Put an input into the corpus, under the name of its content."""
    path = CORPUS / target / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    from tests.fuzz.targets import TARGETS

    for target in TARGETS:
        keep(target, made()[target])
    keep("model_weights", made()["weights"])
