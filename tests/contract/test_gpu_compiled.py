"""Every kernel compiles without a card, for an A100, an H100 and an MI300: to machine code, not only to Triton's own.

``STEEPEST_TEST_TARGETS=all`` compiles every loss and every rule for all three; else a few for each.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.training.activations import ACTIVATIONS

from .backends import POINTWISE, SOFTMAX
from .gpu_device import WITHOUT_A_CARD

if WITHOUT_A_CARD:
    pytest.skip("Triton's interpreter is on, under which nothing is compiled", allow_module_level=True)
triton = pytest.importorskip(
    "triton", reason="Triton comes with torch's CUDA and ROCm builds, and is not here"
)

from triton import language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from steepest.backends import cuda_losses, cuda_optim, cuda_perceptrons, cuda_softmax  # noqa: E402
from steepest.backends.cpu_storage import Layout  # noqa: E402
from steepest.backends.cuda import OPTIONS  # noqa: E402

ALL = os.environ.get("STEEPEST_TEST_TARGETS") == "all"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32), "sm_90": GPUTarget("cuda", 90, 32), "gfx942": GPUTarget("hip", "gfx942", 64)
}  # fmt: skip
WORKS = {"fp32": ("narrow", tl.float64), "fp64": ("full", tl.float64), "bf16": ("half", tl.float32)}
RULES = {
    (entry.cls.__name__, rule): rule
    for entry in OPTIMIZERS.values()
    for optimizer in [entry.cls([torch.zeros(1)], **entry.options)]
    for rule in [optimizer.rule_of(optimizer.param_groups[0])]
}


def machine_code(kernel: Any, target: str, runtime: dict[str, Any], constants: dict[str, Any]) -> str:
    """The assembly of a kernel whose arguments have these types and values."""
    names = kernel.arg_names
    assert set(names) == {*runtime, *constants}
    signature = {name: runtime.get(name, "constexpr") for name in names}
    places = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places)
    made = triton.compile(source, target=TARGETS[target], options=OPTIONS)
    assert made.asm["cubin" if target.startswith("sm") else "hsaco"]
    text: str = made.asm["ptx" if target.startswith("sm") else "amdgcn"]
    return text


def some(names: list[str], few: set[str]) -> list[str]:
    return names if ALL else [name for name in names if name in few]


@pytest.mark.parametrize("kind", WORKS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", some(POINTWISE, {"bce", "huber"}))
def test_pointwise(name: str, target: str, kind: str) -> None:
    formula = LOSSES[name].formula
    count, (precision, work) = len(formula.parameters), WORKS[kind]
    kernel = cuda_losses._pointwise_kernel(formula.value, formula.gradient, count, precision)
    pointer = f"*{kind}"
    for varies in (False, True):
        runtime = {
            "predictions": pointer, "targets": pointer, "output": pointer, "sums": "*fp64", "scale": "*fp64",
            "numbers": ("i64",) * count, "operands": ((pointer, "i64", "i32"),) * (count + 1), "count": "i64",
        }  # fmt: skip
        constants = {"NUM": count, "VARIES": (varies,) * (count + 1), "MODE": 1, "WORK": work, "BLOCK": 1024}
        machine_code(kernel, target, runtime, constants)


@pytest.mark.parametrize("kind", ["fp32", "fp64", "bf16"] if ALL else ["fp32", "bf16"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", some(SOFTMAX, {"cross_entropy"}))
def test_softmax(name: str, target: str, kind: str) -> None:
    formula = LOSSES[name].formula
    count, is_wide = len(formula.parameters), kind == "fp64"
    kernels = cuda_softmax._kernels(formula.value, formula.gradient, count, is_wide)
    pointer, work = f"*{kind}", tl.float64 if is_wide else tl.float32
    for soft in (False, True):
        known: dict[str, Any] = {
            **dict.fromkeys(["x", "q", "class_weight", "output"], pointer), "targets": pointer if soft else "*i64",
            "offset": pointer, "sums": "*fp64", "losses": "*fp64", "scale": "*fp64", "parts": "*fp64", "table": "*fp64",
            "numbers": ("i64",) * count, "num_parts": "i32",
            **dict.fromkeys(["count", "num_classes", "inner", "ignore_index", "a_part"], "i64"),
            "smoothing_bits": "i64",
        }  # fmt: skip
        set_to = {
            "NUM": count, "HAS_PROBABILITIES": soft, "HAS_WEIGHT": soft, "HAS_OFFSET": False, "IS_SMOOTH": soft,
            "MODE": 1,
            "WORK": work, "ROWS": 4, "COLUMNS": 64, "STRETCH": 256, "IS_ONE_CLASS": not soft,
        }  # fmt: skip
        for word, kernel in kernels.items():
            if word in ("share", "total") and not soft:
                continue
            names = kernel.arg_names
            for ones in ({"inner"}, {"inner", "count", "num_classes", "num_parts"}):
                if len(ones) > 1 and (word in ("peaks", "row") or not (ALL or target == "gfx942")):
                    continue  # these are of long rows alone; one compiler tells what Triton makes of a 1
                at_one = dict.fromkeys(ones & set(names), 1)  # a size of 1 is a constant to Triton
                runtime = {name: known[name] for name in names if name in known and name not in at_one}
                constants = {name: set_to[name] for name in names if name in set_to}
                machine_code(kernel, target, runtime, {**constants, **at_one})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("word", ["whole", "row"])
def test_no_slope_is_written_before_all_warps_have_read_their_class(word: str, target: str) -> None:
    """The gradient may be written over the logits, and every warp of a row reads the logit of its class by itself."""
    formula = LOSSES["focal"].formula  # whose slopes hang on that logit everywhere
    count = len(formula.parameters)
    kernel = cuda_softmax._kernels(formula.value, formula.gradient, count, False)[word]
    runtime = {
        **dict.fromkeys(["x", "q", "class_weight", "offset", "output"], "*fp32"), "targets": "*i64",
        **dict.fromkeys(["sums", "losses", "scale"], "*fp64"), "numbers": ("i64",) * count,
        **dict.fromkeys(["count", "num_classes", "ignore_index", "smoothing_bits"], "i64"),
    }  # fmt: skip
    constants = {
        "inner": 1, "NUM": count, "HAS_PROBABILITIES": False, "HAS_WEIGHT": False, "HAS_OFFSET": False,
        "IS_SMOOTH": False, "MODE": 1, "WORK": tl.float32, "ROWS": 1, "COLUMNS": 2048, "STRETCH": 4096,
    }  # fmt: skip
    names = kernel.arg_names
    text = machine_code(
        kernel,
        target,
        {name: kind for name, kind in runtime.items() if name in names},
        {name: value for name, value in constants.items() if name in names},
    )
    writes, barrier = ("st.global", "bar.sync") if target.startswith("sm") else ("global_store", "s_barrier")
    _, after = text.split(writes, 1)  # the loss is written first, by one thread
    assert barrier in after.split(writes, 1)[0]


def test_offsets_have_64_bits() -> None:
    """Of sizes that have 32 none is multiplied by another: a sample of classes by places may have 2^31 logits."""
    formula = LOSSES["cross_entropy"].formula
    kernels = cuda_softmax._kernels(formula.value, formula.gradient, 0, False)
    for word in ("whole", "row", "peaks", "slopes"):
        kernel = kernels[word]
        signature = dict.fromkeys(kernel.arg_names, "constexpr") | {
            name: kind
            for name, kind in {
                **dict.fromkeys(["x", "q", "class_weight", "offset", "output"], "*fp32"), "targets": "*i64",
                **dict.fromkeys(["sums", "losses", "scale", "parts", "table"], "*fp64"), "numbers": (),
                **dict.fromkeys(["count", "num_classes", "inner", "ignore_index", "a_part", "smoothing_bits"], "i32"),
            }.items()
            if name in kernel.arg_names
        }  # fmt: skip
        constants = {
            "NUM": 0, "HAS_PROBABILITIES": False, "HAS_WEIGHT": False, "HAS_OFFSET": False, "IS_SMOOTH": False,
            "MODE": 1, "WORK": tl.float32, "ROWS": 4, "COLUMNS": 64, "STRETCH": 256,
        }  # fmt: skip
        places = {
            (kernel.arg_names.index(name),): value
            for name, value in constants.items()
            if name in kernel.arg_names
        }
        made = triton.compile(
            ASTSource(fn=kernel, signature=signature, constexprs=places),
            target=TARGETS["sm_90"],
            options=OPTIONS,
        )
        assert "%inner" in made.asm["ttir"]
        assert not re.search(
            r"arith\.muli %(num_classes|inner)\S*, %(num_classes|inner)\S* : i32", made.asm["ttir"]
        )


LAYOUTS = {
    "plain": lambda n: Layout("float32", ("float32",) * n),
    "float64": lambda n: Layout("float64", ("float64",) * n),
    "8bit": lambda n: Layout("bfloat16", (("signed8", "unsigned8") * n)[:n], "stochastic"),
    "kahan": lambda n: Layout("float16", ("stochastic_bfloat16",) * n, "kahan"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "rule",
    [rule for (name, rule) in RULES if ALL or name in ("Adam", "LAMB")],
    ids=lambda rule: rule.update.__module__,
)
def test_steps(rule: Any, target: str, layout: str) -> None:
    if not (ALL or rule.measure is None or layout == "plain"):
        return
    own = cuda_optim.kernels(rule, LAYOUTS[layout](len(rule.slots)))
    assert [one.name for one in own.prepare.params if one.do_not_specialize] == ["a_tensor", "first_step"]
    step, of_step = own.step
    set_to = {
        **own.of_layout, **of_step, "NUM_HYPER": len(rule.hyperparameters), "NUM_SCALARS": len(rule.scalars),
        "COUNTS": True,
    }  # fmt: skip
    known = {
        "gradients": "*i64", "owners": "*i32", "firsts": "*i64", "begins": "*i64", "table": "*i64", "factors": "*fp64",
        "nonfinite": "*i32", "squares": "*fp64", "counters": "*i64", "hyper": "*fp64", "a_tensor": "i32",
        "first_step": "i32",
    }  # fmt: skip
    for kernel in filter(None, (own.prepare, step, own.measure, own.trust)):
        names = kernel.arg_names
        constants = {name: set_to[name] for name in names if name in set_to}
        if kernel is own.trust:
            constants["BLOCK"] = 1024
        machine_code(kernel, target, {name: known[name] for name in names if name in known}, constants)


def test_the_check_for_nonfinite_gradients_and_the_scaling() -> None:
    for target in TARGETS:
        runtime = {
            "gradients": "*i64",
            "owners": "*i32",
            "firsts": "*i64",
            "table": "*i64",
            "nonfinite": "*i32",
        }
        machine_code(cuda_optim._check, target, runtime, {"TYPE": tl.float16, "WIDTH": 4, "BLOCK": 1024})
        machine_code(
            cuda_losses._scale,
            target,
            {"gradients": "*bf16", "factor": "*fp32", "count": "i64"},
            {"BLOCK": 1024},
        )


@pytest.mark.parametrize("kind", ["fp32", "fp64"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", some([*ACTIVATIONS], {"gelu"}))
def test_perceptrons(name: str, target: str, kind: str) -> None:
    """Sums of float32 in float32: the shorter tf32 takes part in none."""
    dtype, work = {"fp32": (torch.float32, tl.float32), "fp64": (torch.float64, tl.float64)}[kind]
    one, pointer = ACTIVATIONS[name], f"*{kind}"
    with_activation = cuda_perceptrons._kernels((one.value, one.gradient), dtype)
    kernels = {**cuda_perceptrons._kernels(None, dtype), **with_activation}
    known = {
        **dict.fromkeys(["x", "flat", "sums", "out", "slopes", "gradients", "below"], pointer), "which": "*i32",
        **dict.fromkeys(["num_numbers", "weight_at", "bias_at", "num_rows", "inputs", "outputs"], "i32"),
        "count": "i64",
    }  # fmt: skip
    set_to = {
        "HAS_BIAS": True, "HAS_ACTIVATION": True, "KEEPS": True, "ROWS": 32, "COLUMNS": 64, "DEPTH": 32, "WORK": work,
        "BLOCK": 1024,
    }  # fmt: skip
    for kernel in kernels.values():
        names = kernel.arg_names
        assert all(one.do_not_specialize == (one.name in cuda_perceptrons._PLAIN) for one in kernel.params)
        for ones in (set(), {"inputs", "outputs"}):
            if ones and not (ALL or target == "gfx942"):
                continue  # one compiler tells what Triton makes of a size of 1, a constant to it
            at_one = dict.fromkeys(ones & set(names), 1)
            runtime = {name: known[name] for name in names if name in known and name not in at_one}
            constants = {name: set_to[name] for name in names if name in set_to}
            text = machine_code(kernel, target, runtime, {**constants, **at_one})
            assert "tf32" not in text
            assert "xf32" not in text


@pytest.mark.parametrize("name", ["mse, float32", "AdamW, float32", "cross_entropy 16384 x 131072, float32"])
def test_numbers_are_moved_16_bytes_at_once(name: str) -> None:
    """And none is spilled; cross-entropy's two readings take one number's sum in float64 and nothing more."""
    found = made_of(name)
    assert found["stack"] == 0
    wide = sum(number for width, number in found["widths"].items() if width.endswith("128"))
    assert {"mse, float32": 3, "AdamW, float32": 14}.get(name, 12) == wide
    assert found["counts"]["memory"] <= 4.0
    if name.startswith("cross_entropy"):
        assert found["counts"]["float64"] <= 1.1
        assert found["counts"]["conversion"] <= 1.1


def made_of(name: str) -> dict[str, Any]:
    """What `benchmarks/gpu_static.py` finds in the kernel of a work, for an H100."""
    place = Path(__file__).parents[2] / "benchmarks" / "gpu_static.py"
    specification = spec_from_file_location("gpu_static", place)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    sys.modules["gpu_static"] = module  # for its dataclasses
    specification.loader.exec_module(module)
    (work,) = [work for work in module.works() if work.name == name]
    (found,) = [
        module.figures(compiled, programs, work.num_elements, work.kernels[kernel])
        for kernel, programs, compiled in module.launches(work.call, 90)
        if kernel in work.kernels
    ]
    return found


def test_nothing_is_contracted_behind_the_formula() -> None:
    """Of a product and a sum the card makes what the interpreter makes: two roundings, unless the text says fma."""
    formula = LOSSES["huber"].formula
    kernel = cuda_losses._pointwise_kernel(formula.value, formula.gradient, 1, "narrow")
    runtime = {
        "predictions": "*fp32", "targets": "*fp32", "output": "*fp32", "sums": "*fp64", "scale": "*fp64",
        "numbers": ("i64",), "operands": (("*fp32", "i64", "i32"),) * 2, "count": "i64",
    }  # fmt: skip
    constants = {"NUM": 1, "VARIES": (False, False), "MODE": 1, "WORK": tl.float64, "BLOCK": 1024}
    text = machine_code(kernel, "sm_90", runtime, constants)
    assert "fma" not in text
    assert "mul" in text
