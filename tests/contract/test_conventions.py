"""Each convention against the package it is named after, run itself; where that is not installed, skipped.

The conventions' formulas are held to the digit by test_optimizer_truth; here it is that they are the peer's.
"""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from steepest.optim import SGD, Adam, AdamW, Muon, RMSprop

from .samples import generator

pytestmark = pytest.mark.filterwarnings("ignore")  # the peers' own

RATES = (
    2.0**-6,
    2.0**-6,
    2.0**-6,
    2.0**-8,
    2.0**-8,
    2.0**-3,
    2.0**-3,
    2.0**-6,
)  # changes tell conventions apart
BETAS = {
    "betas": (0.75, 0.96875)
}  # exact in float32, which Keras rounds some options to; so are decays and rates
CLOSE = {"rtol": 1e-12, "atol": 1e-14}
Peer = Any


def start_and_gradients() -> tuple[NDArray[Any], list[NDArray[Any]]]:
    rng = generator("conventions")
    return rng.normal(size=40), [rng.normal(size=40) * 10.0 ** rng.uniform(-3, 1, 40) for _ in RATES]


def walked(cls: Any, options: dict[str, Any]) -> NDArray[Any]:
    start, gradients = start_and_gradients()
    parameter = nn.Parameter(torch.tensor(start))
    optimizer = cls([parameter], lr=RATES[0], **options)
    for lr, gradient in zip(RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach().numpy()


KERAS: list[tuple[Any, dict[str, Any], str, dict[str, Any]]] = [
    (SGD, {"momentum": 0.9}, "SGD", {"momentum": 0.9}),
    (SGD, {"momentum": 0.9, "nesterov": True}, "SGD", {"momentum": 0.9, "nesterov": True}),
    (RMSprop, {"alpha": 0.9, "eps": 1e-3}, "RMSprop", {"rho": 0.9, "epsilon": 1e-3}),
    (RMSprop, {"momentum": 0.9, "eps": 1e-7}, "RMSprop", {"rho": 0.99, "momentum": 0.9}),
    (
        RMSprop,
        {"momentum": 0.5, "centered": True, "eps": 1e-3},
        "RMSprop",
        {"rho": 0.99, "momentum": 0.5, "centered": True, "epsilon": 1e-3},
    ),
    (Adam, {"eps": 1e-3, **BETAS}, "Adam", {"epsilon": 1e-3}),
    (Adam, {"eps": 1e-7, "amsgrad": True, **BETAS}, "Adam", {"amsgrad": True}),
    (
        Adam,
        {"eps": 1e-7, "weight_decay": 0.125, "decoupled_weight_decay": True, **BETAS},
        "Adam",
        {"weight_decay": 0.125},
    ),
    (AdamW, {"eps": 1e-7, "weight_decay": 2.0**-8, **BETAS}, "AdamW", {"weight_decay": 2.0**-8}),
]


@pytest.mark.parametrize("case", range(len(KERAS)))
def test_keras(case: int) -> None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip(
        "keras", reason="keras, of the extra dev, is what the numbers are held to, and is not installed"
    )
    cls, options, word, given = KERAS[case]
    if "betas" in options:
        given = {**given, "beta_1": options["betas"][0], "beta_2": options["betas"][1]}
    start, gradients = start_and_gradients()
    variable = keras.Variable(start, dtype="float64")
    peer = getattr(keras.optimizers, word)(learning_rate=RATES[0], **given)
    for lr, gradient in zip(RATES, gradients, strict=True):
        peer.learning_rate = lr
        peer.apply([keras.ops.convert_to_tensor(gradient, dtype="float64")], [variable])
    theirs = keras.ops.convert_to_numpy(variable.value)
    np.testing.assert_allclose(walked(cls, {**options, "convention": "keras"}), theirs, **CLOSE)


OPTAX: list[tuple[Any, dict[str, Any], str, dict[str, Any]]] = [
    (RMSprop, {"alpha": 0.9, "eps": 1e-3}, "rmsprop", {"decay": 0.9, "eps": 1e-3}),
    (RMSprop, {"alpha": 0.9, "momentum": 0.9}, "rmsprop", {"momentum": 0.9}),
    (
        RMSprop,
        {"alpha": 0.9, "momentum": 0.5, "centered": True, "eps": 1e-3},
        "rmsprop",
        {"momentum": 0.5, "centered": True, "eps": 1e-3},
    ),
    (Adam, {}, "adam", {}),
    (Adam, {"eps": 1e-3, "eps_root": 1e-3}, "adam", {"eps": 1e-3, "eps_root": 1e-3}),
    (Adam, {"amsgrad": True, "eps_root": 1e-6}, "amsgrad", {"eps_root": 1e-6}),
    (AdamW, {"weight_decay": 1e-4}, "adamw", {}),
]


@pytest.mark.parametrize("case", range(len(OPTAX)))
def test_optax(case: int) -> None:
    optax = pytest.importorskip(
        "optax", reason="optax, of the extra dev, is what the numbers are held to, and is not installed"
    )
    jax = pytest.importorskip("jax", reason="optax computes with jax, which is not installed")
    cls, options, word, given = OPTAX[case]
    start, gradients = start_and_gradients()
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        p = jax.numpy.asarray(start)
        peer = optax.inject_hyperparams(getattr(optax, word))(learning_rate=RATES[0], **given)
        state = peer.init(p)
        for lr, gradient in zip(RATES, gradients, strict=True):
            state.hyperparams["learning_rate"] = jax.numpy.asarray(lr)
            updates, state = peer.update(jax.numpy.asarray(gradient), state, p)
            p = optax.apply_updates(p, updates)
        theirs = np.asarray(p)
    finally:
        jax.config.update("jax_enable_x64", before)
    np.testing.assert_allclose(walked(cls, {**options, "convention": "optax"}), theirs, **CLOSE)


@pytest.mark.parametrize(
    ("cls", "options", "conventions"),
    [
        (SGD, {"momentum": 0.9}, ("torch", "ema", "keras")),
        (SGD, {"momentum": 0.9, "nesterov": True}, ("torch", "keras")),
        (RMSprop, {"momentum": 0.9, "eps": 1e-3}, ("torch", "keras", "tf1")),
        (Adam, {"eps": 1e-3}, ("torch", "keras")),
        (Adam, {"amsgrad": True}, ("torch", "optax")),
    ],
)
def test_conventions_differ(cls: Any, options: dict[str, Any], conventions: tuple[str, ...]) -> None:
    """Where the rate changes and eps is not small, no two of these take the same steps."""
    ends = [walked(cls, {**options, "convention": convention}) for convention in conventions]
    for i, end in enumerate(ends):
        for other in ends[:i]:
            assert float(np.max(np.abs(end - other))) > 1e-4


def test_conventions_that_are_the_same() -> None:
    for nesterov in (False, True):
        ends = [
            walked(SGD, {"momentum": 0.9, "nesterov": nesterov, "convention": c}) for c in ("torch", "tf1")
        ]
        np.testing.assert_array_equal(*ends)
    ends = [walked(RMSprop, {"momentum": 0.9, "convention": c}) for c in ("keras", "optax")]
    np.testing.assert_array_equal(*ends)


OWN: list[
    tuple[Any, dict[str, Any], dict[str, Any]]
] = [  # torch's options, and what torch's dictionary lacks
    (SGD, {"momentum": 0.9}, {"convention": "ema"}),
    (SGD, {"momentum": 0.9, "nesterov": True}, {"convention": "keras"}),
    (RMSprop, {"momentum": 0.9, "eps": 0.0}, {"convention": "keras"}),
    (RMSprop, {"eps": 0.0}, {"convention": "optax", "state_dtype": "8bit"}),
    (Adam, {"amsgrad": True}, {"convention": "keras"}),
    (AdamW, {}, {"convention": "optax", "eps_root": 0.25, "rounding": "kahan"}),
    (Muon, {}, {"orthogonalize_dtype": torch.float64}),
]


@pytest.mark.parametrize(("cls", "options", "own"), OWN)
def test_torchs_state_leaves_own_options_alone(
    cls: Any, options: dict[str, Any], own: dict[str, Any]
) -> None:
    """Each group's, also where it differs from what the optimizer was made with; what torch knows is torch's."""
    first, second = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    ours = cls([{"params": [first], **own}, {"params": [second]}], **options)
    theirs = getattr(torch.optim, cls.__name__)([{"params": [first]}, {"params": [second]}], lr=0.125)
    for group in ours.param_groups:
        group["initial_lr"] = 1.0  # a scheduler's
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0].items() >= own.items()
    for word in own:
        assert ours.param_groups[1].get(word) == cls([second]).param_groups[0].get(word)
    assert all(group["lr"] == 0.125 and "initial_lr" not in group for group in ours.param_groups)


@pytest.mark.parametrize(("cls", "options", "own"), [case for case in OWN if "momentum" in case[1]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torchs_averages_are_brought_into_the_conventions_form(
    cls: Any, options: dict[str, Any], own: dict[str, Any], dtype: torch.dtype
) -> None:
    _, gradients = start_and_gradients()
    start = torch.zeros(40, dtype=dtype)
    peer = getattr(torch.optim, cls.__name__)([nn.Parameter(start.clone())], lr=0.125, **options)
    alone, moved = (cls([nn.Parameter(start.clone())], lr=0.125, **options, **own) for _ in range(2))
    for step, gradient in enumerate(gradients):
        if step == 4:
            kept = copy.deepcopy(peer.state_dict())
            for state in kept["state"].values():
                state["momentum_buffer"] = state["momentum_buffer"].double()  # wider than its parameter
            moved.load_state_dict(kept)
            with torch.no_grad():
                moved.param_groups[0]["params"][0].copy_(alone.param_groups[0]["params"][0])
        for optimizer in (peer, alone, *[moved] * (step >= 4)):
            parameter = optimizer.param_groups[0]["params"][0]
            parameter.grad = torch.tensor(gradient, dtype=dtype)
            optimizer.step()
    close = CLOSE if dtype == torch.float64 else {"rtol": 0.1, "atol": 0.02}
    (mine,), (its,) = (optimizer.param_groups[0]["params"] for optimizer in (moved, alone))
    np.testing.assert_allclose(mine.detach().double().numpy(), its.detach().double().numpy(), **close)
