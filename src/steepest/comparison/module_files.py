"""What a training of a module leaves beside its checkpoints: the model and the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steepest.comparison.canonical import canonical_json
from steepest.comparison.manifest import MODULE
from steepest.comparison.output import write_directory
from steepest.comparison.versions import versions
from steepest.files import write_file
from steepest.training.distributed.run import ModuleRecord

__all__ = ["CHECKPOINTS", "OURS", "RECORD", "write_model", "write_record"]

_FORMAT = 1
RECORD, CHECKPOINTS, _MODEL = "record.json", "checkpoints", "model"
OURS = frozenset({RECORD, CHECKPOINTS, _MODEL})


def write_model(place: Path, question: dict[str, Any], record: ModuleRecord, module_name: str) -> None:
    """The weights under the module's own names, and a manifest; both or none."""
    from safetensors.torch import save

    assert record.state is not None
    state = {name: tensor.contiguous().clone() for name, tensor in record.state.items()}
    manifest = {
        "format": _FORMAT,
        "kind": MODULE,
        "module": module_name,
        **question,
        "hyperparameters": record.hyperparameters,
        "num_steps": record.standing.step,
        "versions": versions(),
    }

    def fill(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(save(state))
        (folder / "manifest.json").write_text(canonical_json(manifest), encoding="utf-8")

    write_directory(place / _MODEL, fill)


def write_record(place: Path, question: dict[str, Any], record: ModuleRecord | None) -> None:
    """What the training came to; before its end, that it is one."""
    about: dict[str, Any] = {"format": _FORMAT, "kind": "training of a module", "question": question}
    if record is None:
        about["status"] = "begun"
    else:
        about |= {
            "status": "interrupted" if record.stop_reason == "interrupted" else "complete",
            "stop_reason": record.stop_reason,
            "hyperparameters": record.hyperparameters,
            "accumulate": record.run.accumulate,
            **record.standing.as_json(),
            "versions": versions(),
        }
    write_file(place / RECORD, canonical_json(about).encode())
