"""A trained network as an ONNX file: it predicts wherever there is an ONNX runtime, without steepest or Python."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from steepest import __version__
from steepest.comparison.forward import Layer
from steepest.data import Encoding
from steepest.data.encoding import CategoricalColumn, NumericColumn, Part
from steepest.errors import InputError
from steepest.files import write_file

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = [
    "Graph",
    "add_encoding",
    "add_network",
    "add_prediction",
    "add_probabilities",
    "input_names",
    "write",
]

# Old enough for the runtimes of 2022, and enough for what is used here.
_IR_VERSION = 8
_OPSETS = {"": 17, "ai.onnx.ml": 3}


class Graph:
    """A graph in the making. Every operation's result has a name of its own.

    Args:
        inputs: the names of the inputs, which no constant and no result gets: columns may have any name.

    Raises:
        InputError: the package onnx is not installed.
    """

    def __init__(self, inputs: Iterable[str]) -> None:
        self._input_names = frozenset(inputs)
        try:
            import onnx
        except ImportError:
            raise InputError(
                "An ONNX file is written with the package onnx, which is not installed: pip install 'steepest[onnx]'."
            ) from None
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, dtype: type, width: int) -> str:
        """An input of (rows, width)."""
        self._inputs.append(self._value(name, dtype, ["rows", width]))
        return name

    def output(self, name: str, given: str, dtype: type, *width: int) -> None:
        """What ``given`` names becomes an output of (rows, *width); ``NAME_`` where an input has the name."""
        name = self._free(name)
        self._nodes.append(self._onnx.helper.make_node("Identity", [given], [name]))
        self._outputs.append(self._value(name, dtype, ["rows", *width]))

    def constant(self, value: Any) -> str:
        """A constant array."""
        name = self._free(f"constant_{len(self._constants)}")
        array = np.asarray(value)
        tensor = self._onnx.numpy_helper.from_array(
            array.astype(object) if array.dtype.kind == "U" else array, name
        )
        self._constants.append(tensor)
        return name

    def apply(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """The name of an operation's result."""
        name = self._free(f"{operator.lower()}_{len(self._nodes)}")
        node = self._onnx.helper.make_node(operator, list(inputs), [name], domain=domain, **attributes)
        self._nodes.append(node)
        return name

    def _free(self, name: str) -> str:
        while name in self._input_names:
            name += "_"
        return name

    def cast(self, given: str, dtype: type) -> str:
        """The same numbers in another type."""
        return self.apply("Cast", given, to=self._type(dtype))

    def model(self) -> ModelProto:
        """The finished model, checked."""
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, "steepest", self._inputs, self._outputs, self._constants)
        model: ModelProto = helper.make_model(
            graph,
            producer_name="steepest",
            producer_version=__version__,
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()],
        )
        self._onnx.checker.check_model(model, full_check=True)
        return model

    def _value(self, name: str, dtype: type, shape: Sequence[str | int]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._type(dtype), shape)

    def _type(self, dtype: type) -> int:
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(object if dtype is str else dtype)))


def write(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write the model whole or not at all; the same model gives the same bytes.

    Raises:
        InputError: it cannot be written.
    """
    write_file(path, graph.model().SerializeToString(deterministic=True))


def add_network(graph: Graph, layers: Sequence[Layer], activation: str, rows: str) -> str:
    """The layers on rows (rows, features) of float32; what the last layer gives, (rows, outputs)."""
    for place, (weight, bias) in enumerate(layers):
        if place > 0:
            rows = _ACTIVATIONS[activation](graph, rows)
        weights = [graph.constant(part.astype(np.float32)) for part in (weight, bias)]
        rows = graph.apply("Gemm", rows, *weights, transB=1)
    return rows


def _gelu(graph: Graph, x: str) -> str:
    scaled = graph.apply("Mul", x, graph.constant(np.float32(math.sqrt(0.5))))
    gate = graph.apply("Add", graph.apply("Erf", scaled), graph.constant(np.float32(1.0)))
    return graph.apply("Mul", graph.apply("Mul", x, gate), graph.constant(np.float32(0.5)))


_ACTIVATIONS: Mapping[str, Callable[[Graph, str], str]] = {
    "relu": lambda graph, x: graph.apply("Relu", x),
    "tanh": lambda graph, x: graph.apply("Tanh", x),
    "gelu": _gelu,
    "silu": lambda graph, x: graph.apply("Mul", x, graph.apply("Sigmoid", x)),
    "sigmoid": lambda graph, x: graph.apply("Sigmoid", x),
}


def add_prediction(graph: Graph, output: str, mean: float, scale: float, *, gives_log_rate: bool) -> None:
    """The output ``prediction`` (rows, 1), in the target's own units."""
    wide = graph.cast(output, np.float64)
    if gives_log_rate:
        result = graph.apply("Mul", graph.apply("Exp", wide), graph.constant(np.float64(mean)))
    else:
        scaled = graph.apply("Mul", wide, graph.constant(np.float64(scale)))
        result = graph.apply("Add", scaled, graph.constant(np.float64(mean)))
    graph.output("prediction", result, np.float64, 1)


def add_probabilities(graph: Graph, logits: str, num_logits: int, classes: Any) -> None:
    """The outputs ``label`` (rows,) and ``probabilities`` (rows, classes), columns in the order of ``classes``.

    ``num_logits`` a row: one for two classes, that of the second, or one a class.

    Raises:
        InputError: ONNX has no type for the classes.
    """
    labels = np.asarray(classes)
    if labels.dtype.kind not in "biufUO" or labels.dtype == np.longdouble:
        raise InputError(
            f"ONNX has no type for class labels of {labels.dtype}; train on text or numbers to write such a file."
        )
    wide = graph.cast(logits, np.float64)
    if num_logits == 1:
        opposite = graph.apply("Neg", wide)
        wide = graph.apply("Concat", opposite, wide, axis=1)
        shares = graph.apply("Sigmoid", wide)
    else:
        shares = graph.apply("Softmax", wide, axis=1)
    best = graph.apply("ArgMax", shares, axis=1, keepdims=0)
    dtype = str if labels.dtype.kind in "UO" else labels.dtype.type
    graph.output("label", graph.apply("Gather", graph.constant(labels), best), dtype)
    graph.output("probabilities", shares, np.float64, len(classes))


def add_encoding(graph: Graph, encoding: Encoding) -> str:
    """An input of (rows, 1) for each column, or each part of a date; the features, (rows, features) of float32.

    Numbers and booleans come as float64, NaN where missing; categories as text, empty where missing.
    """
    features: list[str] = []
    for column in encoding.columns:
        if isinstance(column, CategoricalColumn):
            features.append(_categories(graph, column))
        else:
            features += _numbers(graph, column)
    return graph.apply("Concat", *features, axis=1)


def input_names(encoding: Encoding) -> list[str]:
    """The names of the inputs that :func:`add_encoding` adds."""
    return [
        name
        for column in encoding.columns
        for name in (
            [column.name]
            if isinstance(column, CategoricalColumn)
            else [_input_name(column, part) for part in column.parts]
        )
    ]


def _input_name(column: NumericColumn, part: Part) -> str:
    return column.name if part.name == "value" else f"{column.name} ({part.name})"


def _numbers(graph: Graph, column: NumericColumn) -> list[str]:
    """As ``NumericColumn.features``."""
    features = []
    is_missing = ""
    for part in column.parts:
        given = graph.input(_input_name(column, part), np.float64, 1)
        is_missing = graph.apply("IsNaN", given)
        filled = graph.apply("Where", is_missing, graph.constant(np.float64(part.fill)), given)
        centred = graph.apply("Sub", filled, graph.constant(np.float64(part.mean)))
        scaled = graph.apply("Div", centred, graph.constant(np.float64(part.scale)))
        features.append(graph.cast(scaled, np.float32))
    if column.flags_missing:
        features.append(graph.cast(is_missing, np.float32))
    return features


def _categories(graph: Graph, column: CategoricalColumn) -> str:
    """As ``CategoricalColumn.features``: the place of the 1 is looked up; a place outside gives zeros alone."""
    width = len(column.feature_names)
    infrequent = len(column.levels) if column.infrequent else width
    places = {"": width - 1 if column.flags_missing else width}
    places |= dict.fromkeys(column.infrequent, infrequent)
    places |= {level: place for place, level in enumerate(column.levels)}
    found = graph.apply(
        "LabelEncoder",
        graph.input(column.name, str, 1),
        domain="ai.onnx.ml",
        keys_strings=list(places),
        values_int64s=list(places.values()),
        default_int64=infrequent,
    )
    ones = graph.apply(
        "OneHot", found, graph.constant(np.int64(width)), graph.constant(np.array([0.0, 1.0], np.float32))
    )
    return graph.apply("Reshape", ones, graph.constant(np.array([-1, width])))
