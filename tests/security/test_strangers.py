"""A directory from a stranger is data: nothing in it is run, nothing is followed, and no size is believed."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fuzz.seeds import made

import steepest
from steepest.comparison import manifest
from steepest.comparison.canonical import canonical_json
from steepest.comparison.plan import Plan
from steepest.errors import InputError
from steepest.estimators import SteepestClassifier

SOURCES = Path(steepest.__file__).parent
# They make and run the derivative of a function that the user gave, and functions of their own in Triton's words.
MAY_RUN = {SOURCES / "backends" / "derive.py", SOURCES / "backends" / "cuda_vocabulary.py"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model") / "model"
    x = np.random.default_rng(0).normal(size=(60, 2))
    steepest.fit((x, x[:, 0]), lr=0.01, hidden=(3,), max_epochs=1).save(place)
    return place


@pytest.fixture
def given(model: Path, tmp_path: Path) -> Path:
    """A copy, to be tampered with."""
    return Path(shutil.copytree(model, tmp_path / "model"))


def vouch(place: Path, **changes: Any) -> None:
    """Change a manifest, and its own digests with it: whoever can do the one can do the other."""
    content = json.loads((place / "manifest.json").read_text())
    del content["manifest_sha256"]
    content |= changes
    content["weights_sha256"] = hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest()
    content["manifest_sha256"] = manifest._digest(content)
    (place / "manifest.json").write_text(canonical_json(content))


def test_no_text_is_run_anywhere() -> None:
    """Nor is any loaded as code: the pickles are test_architecture's."""
    for path in set(SOURCES.rglob("*.py")) - MAY_RUN:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "__import__"), f"{path}: line {node.lineno}"


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["link", "pipe", "device", "directory"])
def test_what_is_no_file_is_not_read(given: Path, name: str, kind: str) -> None:
    path = given / name
    path.rename(given.parent / name)
    if kind == "link":
        path.symlink_to(given.parent / name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(InputError, match="There is no model"):
        steepest.load(given)


CLAIMS = {
    "elements": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 4]},
    "bytes": {"dtype": "F32", "shape": [2**58], "data_offsets": [0, 2**60]},
    "none": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]},
    "a type": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]},
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_of_the_weights_is_held_to_their_bytes(given: Path, claim: str) -> None:
    header = json.dumps({"layers.0.weight": CLAIMS[claim]}).encode()
    (given / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    vouch(given)
    refused_without_memory(lambda: steepest.load(given))


@pytest.mark.parametrize("hidden", [[10**9], [10**9] * 1000, ["a"], [-1], 10**9, [2**70], None])
def test_a_claim_of_the_manifest_is_held_to_the_weights(given: Path, hidden: Any) -> None:
    content = json.loads((given / "manifest.json").read_text())
    vouch(given, architecture=content["architecture"] | {"hidden": hidden})
    refused_without_memory(lambda: steepest.load(given))


def test_a_type_of_labels_claims_no_memory(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    SteepestClassifier(hidden=(2,), epochs=1).fit(x, ["u", "v"] * 20).save(tmp_path / "model")
    for dtype in ("<U100000000", "V1000000000", "S1000000000", "not a type"):
        vouch(tmp_path / "model", classes_dtype=dtype)
        refused_without_memory(lambda: SteepestClassifier.load(tmp_path / "model"))


PLANS = {
    "points_per_decade": 10**9,
    "num_configurations": 10**12,
    "tuning_seeds": list(range(100_000)),
    "epochs": 10**400,
    "architecture": {"hidden": [10**400], "activation": "relu"},
}


@pytest.mark.parametrize("entry", PLANS)
def test_a_plan_of_more_than_anyone_could_run_is_refused(entry: str) -> None:
    content = json.loads(made()["plan"]) | {entry: PLANS[entry]}
    refused_without_memory(lambda: Plan.from_json(json.dumps(content)))


def refused_without_memory(load: Any) -> None:
    """It is refused, and less is taken for it than a large table has."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            load()
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "where", ["/etc/passwd", "../../../etc/passwd", "/dev/zero", "/proc/self/environ", "~root/x.csv"]
)
def test_a_question_leads_to_no_file_but_a_table(tmp_path: Path, where: str) -> None:
    """What it names is read as a table, and held to the plan's digest; that is all that can be done with it."""
    out = tmp_path / "out"
    (out / "unfinished").mkdir(parents=True)
    (out / "unfinished" / "plan.json").write_bytes(made()["plan"])
    question = {"format": 1, "data": where, "target": "y"}
    (out / "unfinished" / "question.json").write_text(json.dumps(question))
    with pytest.raises(InputError) as refused:
        steepest.compare(resume=out)
    assert "root:" not in str(refused.value)


def test_work_that_is_a_link_is_neither_written_nor_removed(tmp_path: Path) -> None:
    other, out = tmp_path / "other", tmp_path / "out"
    other.mkdir()
    (other / "plan.json").write_bytes(made()["plan"])
    (other / "journal").write_bytes(b"")
    out.mkdir()
    (out / "unfinished").symlink_to(other)
    x = np.random.default_rng(0).normal(size=(60, 1))
    with pytest.raises(InputError, match="is a symbolic link"):
        steepest.compare((x, x[:, 0]), resume=out)
    (out / "verdict.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="is a symbolic link"):
        steepest.compare((x, x[:, 0]), losses=["mse"], optimizers=["sgd"], out=out)
    assert (other / "journal").read_bytes() == b""
    assert {path.name for path in other.iterdir()} == {"plan.json", "journal"}
