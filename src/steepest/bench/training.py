"""Training steps (gather, forward, loss, backward, optimizer) against loops in torch, JAX and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from steepest.bench import eager, modules
from steepest.bench.peers import if_there, load, version
from steepest.bench.work import OURS, Bar, Contestant, Field, Limit, Missing, Ratio, Share, Work
from steepest.comparison.engine import count_threads
from steepest.training.modules import build_module
from steepest.training.native import NativeEngine, layer_sizes
from steepest.training.random import initial_parameters
from steepest.training.run import Architecture, Run, Stop, TrainingData

__all__ = ["works"]

EAGER, JAX, SKLEARN = "torch eager loop", "JAX jit(scan)", "scikit-learn"
JAX_RUNS = "JAX jit(vmap(scan))"
_ROWS = 1024
_RATE = 1e-3


class Case(NamedTuple):
    """Runs of one net, so many steps in a call, and how many times as fast as each peer a step has to be."""

    inputs: int
    hidden: tuple[int, ...]
    classes: int  # 1: regression; 2: one logit
    batch_size: int
    epochs: int
    at_least: Mapping[str, float | None]
    num_runs: int = 1
    optimizer: str = "adam"
    share: float | None = None  # of sgemm's speed


CASES = (
    Case(10, (5,), 1, 1, 20, {JAX: 2.0, EAGER: None}),
    Case(10, (5,), 1, 32, 300, {JAX: 1.5, EAGER: None}),
    Case(64, (128, 128), 10, 32, 30, {EAGER: None, JAX: None}),
    Case(10, (5,), 1, 32, 100, {JAX_RUNS: 1.5}, num_runs=64),
    Case(64, (128, 128), 10, 32, 4, {JAX_RUNS: 2.0}, num_runs=64),
    Case(784, (256,), 10, 128, 20, {EAGER: None, JAX: None}, share=0.85),
    Case(10, (), 1, 1, 200, {SKLEARN: 1.5}, optimizer="sgd"),
    Case(10, (), 2, 1, 200, {SKLEARN: 1.5}, optimizer="sgd"),
)


def works(quick: bool) -> list[Work]:
    """The cases; torch, BLAS and a run of ours on one thread, many runs and JAX on all."""
    return [
        *(
            _work(case._replace(epochs=1, num_runs=min(case.num_runs, 3)) if quick else case)
            for case in CASES
        ),
        *modules.works(quick),
        *eager.works(quick),
    ]


def _work(case: Case) -> Work:
    bars: tuple[Bar, ...] = tuple(Ratio((peer,), ratio) for peer, ratio in case.at_least.items())
    if case.share is not None:
        bars = (Share(case.share), *bars)
    run = _run(case)
    net = "-".join(map(str, layer_sizes(run, case.inputs, case.classes)))
    if not case.hidden:
        net = f"{'linear' if case.classes == 1 else 'logistic'} regression, {case.inputs} features"
    runs = f"{case.num_runs} runs side by side, " if case.num_runs > 1 else ""
    name = f"{runs}{net}, {run.loss}, {run.optimizer}, batch {case.batch_size}, a step of a run"
    return Work(
        name, partial(_field, case), bars, Limit("sgemm", _operations(case)),
        num_threads=1 if case.num_runs == 1 else None,
    )  # fmt: skip


def _run(case: Case) -> Run:
    loss = {1: "mse", 2: "bce"}.get(case.classes, "cross_entropy")
    stop = Stop(max_epochs=case.epochs)
    return Run(loss, case.optimizer, _RATE, case.batch_size, 0, Architecture(case.hidden), stop)


def _operations(case: Case) -> float:
    """Of the matrix products: forward, by the weights, and, the first layer apart, by the inputs."""
    sizes = layer_sizes(_run(case), case.inputs, case.classes)
    products = [rows * columns for rows, columns in pairwise(sizes)]
    return 2.0 * case.batch_size * (3 * sum(products) - products[0])


def _field(case: Case) -> Field:
    data = rows_of(case.inputs, case.classes)
    peers: dict[str, Callable[[], Contestant]] = {
        EAGER: partial(_eager, case, data),
        JAX: partial(by_jax, case, data),
        JAX_RUNS: partial(by_jax, case, data),
        SKLEARN: partial(_scikit_learn, case, data),
    }
    field: dict[str, Contestant | Missing] = {OURS: _ours(case, data)}
    return field | {peer: if_there(peers[peer]) for peer in case.at_least}


def _steps_an_epoch(case: Case) -> int:
    return _ROWS // case.batch_size


def _rates(case: Case) -> NDArray[np.float32]:
    """Runs of a comparison differ in their rates; they share their rows' order."""
    return np.array(
        [_RATE * 100 ** (i / case.num_runs - 0.5) for i in range(case.num_runs)], dtype=np.float32
    )


def _ours(case: Case, data: TrainingData) -> Contestant:
    runs = [replace(_run(case), lr=float(rate)) for rate in _rates(case)]
    engine = NativeEngine(data, "rmse" if case.classes == 1 else "log_loss")
    steps = case.epochs * _steps_an_epoch(case)

    def call() -> None:
        for record in engine.run_all(runs, num_threads=min(len(runs), count_threads(None))):
            if record is None or record.num_steps != steps:
                raise AssertionError("a run ended early; its time would mean nothing")

    return Contestant(call, units=steps * len(runs))


def rows_of(inputs: int, classes: int) -> TrainingData:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(_ROWS, inputs)).astype(np.float32)
    scores = x @ rng.normal(size=inputs) / np.sqrt(inputs) + rng.normal(size=_ROWS)
    if classes == 1:
        y = scores.astype(np.float32)
        return TrainingData("regression", 1, x, y, x[:0], y[:0])
    if classes == 2:
        y = (scores > 0).astype(np.float32)
        return TrainingData("binary", 2, x, y, x[:0], y[:0])
    labels = rng.integers(0, classes, _ROWS)
    return TrainingData("multiclass", classes, x, labels, x[:0], labels[:0])


# --- the peers ---------------------------------------------------------------------------------------------------


def _eager(case: Case, data: TrainingData) -> Contestant:
    """What a person writes: batches sliced from shuffled rows, torch's own loss and Adam."""
    run = _run(case)
    module = build_module(layer_sizes(run, case.inputs, case.classes), run.architecture)
    optimizer = torch.optim.Adam(module.parameters(), lr=run.lr)
    x, y = torch.tensor(data.x_train), torch.tensor(data.y_train)
    y = y if case.classes > 1 else y.unsqueeze(1)
    loss_function = torch.nn.CrossEntropyLoss() if case.classes > 1 else torch.nn.MSELoss()
    steps = min(200, _steps_an_epoch(case))

    def call() -> None:
        order = torch.randperm(len(x))
        for batch in order.split(case.batch_size)[:steps]:
            optimizer.zero_grad()
            loss_function(module(x[batch]), y[batch]).backward()
            optimizer.step()

    return Contestant(call, torch.__version__, units=steps)


def by_jax(case: Case, data: TrainingData) -> Contestant:
    """One compiled scan over an epoch's batches, which lie in order already, in a scan over the epochs.

    Many runs are one ``vmap`` of it over their rates, on the same batches. Adam is optax's.
    """
    jax, jnp, lax, optax = (load(name) for name in ("jax", "jax.numpy", "jax.lax", "optax"))
    sizes = layer_sizes(_run(case), case.inputs, case.classes)
    shape = (_steps_an_epoch(case), case.batch_size)
    order = np.random.default_rng(0).permutation(_ROWS)
    x = jnp.asarray(data.x_train[order].reshape(*shape, case.inputs))
    y = jnp.asarray(data.y_train[order].reshape(shape))

    def loss(parameters: Any, batch: Any) -> Any:
        activations, targets = batch
        for weight, bias in parameters[:-1]:
            activations = jax.nn.relu(activations @ weight + bias)
        weight, bias = parameters[-1]
        outputs = activations @ weight + bias
        if case.classes > 1:
            return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
        return ((outputs[:, 0] - targets) ** 2).mean()

    def train(rate: Any, parameters: Any) -> Any:
        optimizer = optax.adam(rate)

        def step(carry: Any, batch: Any) -> Any:
            held, state = carry
            value, gradient = jax.value_and_grad(loss)(held, batch)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(held, updates), state), value

        def epoch(carry: Any, _: Any) -> Any:
            return lax.scan(step, carry, (x, y))

        (held, _), values = lax.scan(
            epoch, (parameters, optimizer.init(parameters)), None, length=case.epochs
        )
        return held, values

    parameters = _layers(sizes, jnp)
    rates = jnp.asarray(_rates(case))
    many = case.num_runs > 1
    compiled = jax.jit(jax.vmap(train, in_axes=(0, None)) if many else train)
    rate = rates if many else rates[0]

    def call() -> None:
        jax.block_until_ready(compiled(rate, parameters))

    return Contestant(call, version("jax"), units=case.epochs * _steps_an_epoch(case) * case.num_runs)


def _layers(sizes: list[int], jnp: Any) -> list[tuple[Any, Any]]:
    """Our initial weights, as (inputs, outputs), the layout JAX multiplies by without turning."""
    flat, layers, start = initial_parameters(sizes, 0), [], 0
    for inputs, outputs in pairwise(sizes):
        weight = flat[start : start + inputs * outputs].reshape(outputs, inputs)
        start += inputs * outputs
        layers.append((jnp.asarray(weight.T.copy()), jnp.asarray(flat[start : start + outputs])))
        start += outputs
    return layers


def _scikit_learn(case: Case, data: TrainingData) -> Contestant:
    linear = load("sklearn.linear_model")
    cls = linear.SGDRegressor if case.classes == 1 else partial(linear.SGDClassifier, loss="log_loss")
    model = cls(
        penalty=None, learning_rate="constant", eta0=_RATE, max_iter=case.epochs, tol=None, random_state=0
    )

    def call() -> None:
        model.fit(data.x_train, data.y_train)

    return Contestant(call, version("scikit-learn"), units=case.epochs * _ROWS)
