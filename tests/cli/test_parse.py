"""What a person types, as values; and a sentence with the option's name for what cannot be one."""

from __future__ import annotations

import pytest

from steepest.cli import parse
from steepest.errors import InputError


@pytest.mark.parametrize(
    ("text", "sizes"), [("32", (32,)), ("full,1,32", ("full", 1, 32)), (" Full , 8 ", ("full", 8))]
)
def test_batch_sizes(text: str, sizes: tuple[object, ...]) -> None:
    assert parse.batch_sizes(text) == sizes


@pytest.mark.parametrize("text", ["", ",", "0", "-1", "all", "1.5", "32;64"])
def test_bad_batch_sizes(text: str) -> None:
    with pytest.raises(InputError, match="--batch-sizes"):
        parse.batch_sizes(text)


@pytest.mark.parametrize(("text", "widths"), [("64,64", (64, 64)), ("8", (8,)), ("none", ()), ("", ())])
def test_hidden(text: str, widths: tuple[int, ...]) -> None:
    assert parse.hidden(text) == widths


@pytest.mark.parametrize("text", ["0", "-4", "64x64", "8,a"])
def test_bad_hidden(text: str) -> None:
    with pytest.raises(InputError, match="--hidden"):
        parse.hidden(text)


def test_learning_rate() -> None:
    assert parse.learning_rate("1e-3") == 1e-3
    assert parse.learning_rate("AUTO") == "auto"


@pytest.mark.parametrize("text", ["0", "-0.1", "fast", "nan", "inf", ""])
def test_bad_learning_rate(text: str) -> None:
    with pytest.raises(InputError, match=r"--lr is .*above 0"):
        parse.learning_rate(text)


def test_options() -> None:
    found = parse.options("delta=1.5, eps = 1e-6", "--loss-options")
    assert found == {"delta": 1.5, "eps": 1e-6}


@pytest.mark.parametrize("text", ["delta", "delta=", "delta=wide", "", "1.5", "delta=1,delta=2"])
def test_bad_options(text: str) -> None:
    with pytest.raises(InputError, match="--loss-options"):
        parse.options(text, "--loss-options")


def test_names() -> None:
    assert parse.names("mse, mae,", "--losses") == ("mse", "mae")
    assert parse.names('a, "b, c", "say ""d"""', "--ignore") == ("a", "b, c", 'say "d"')
    assert parse.names('5" wide,b\nc', "--ignore") == ('5" wide', "b\nc")
    with pytest.raises(InputError, match="--losses is empty"):
        parse.names(" , ", "--losses")
