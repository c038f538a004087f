"""Wrong options: each one is named, and what would do is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from steepest.comparison.options import Options
from steepest.comparison.plan import make_plan
from steepest.data import Prepared
from steepest.errors import InputError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"losses": ["mes"]}, "no loss 'mes'; did you mean 'mse'"),
    ({"losses": []}, "at least one loss"),
    ({"losses": torch.nn.HuberLoss}, "HuberLoss'>; did you mean 'huber'"),
    ({"losses": [torch.nn.MSELoss()]}, "no loss MSELoss(); choose from mse"),
    ({"losses": [["mse"]]}, "no loss ['mse']; choose from mse"),
    ({"optimizers": [torch.optim.Adam]}, "Adam'>; did you mean 'adam'"),
    ({"metric": 3}, "no metric 3; choose from"),
    ({"schedules": [None]}, "no schedule None; choose from constant"),
    ({"activation": None}, "no activation None; choose from relu"),
    ({"losses": "mse,mse"}, "'mse' is given twice"),
    ({"losses": ["mse", "cross_entropy"]}, "'cross_entropy' does not fit a regression target; these do: mse"),
    ({"losses": ["bce"]}, "For classes that come as floats, the task is 'binary'."),
    ({"optimizers": ["adm"]}, "no optimizer 'adm'; did you mean 'adam'"),
    ({"optimizers": ["Adam"]}, "no optimizer 'Adam'; did you mean 'adam'?"),
    ({"optimizers": ["adam", "adam"]}, "'adam' is given twice"),
    ({"metric": "rmsee"}, "no metric 'rmsee'; did you mean 'rmse'"),
    ({"metric": "accuracy"}, "'accuracy' does not fit a regression target"),
    ({"schedules": "cosin"}, "did you mean 'cosine'"),
    ({"schedules": ["cosine", "cosine"]}, "'cosine' is given twice"),
    ({"schedules": []}, "at least one schedule"),
    ({"warmup": 1}, "warmup is a share of the steps, from 0 to below 1"),
    ({"schedules": "wsd", "batch_sizes": "full", "max_epochs": 1}, "a single step, over which a schedule"),
    ({"warmup": 0.1, "batch_sizes": "full", "max_epochs": 1}, "a single step, over which a warm-up"),
    ({"batch_sizes": ["half"]}, "'full' or a positive whole number, not 'half'"),
    ({"batch_sizes": [0]}, "not 0"),
    ({"batch_sizes": [True]}, "not True"),
    ({"batch_sizes": [2.5]}, "not 2.5"),
    ({"batch_sizes": [32, 32]}, "32 is given twice"),
    ({"batch_sizes": [10_000]}, "larger than the 120 training rows"),
    ({"hidden": (64, 0)}, "positive whole numbers"),
    ({"hidden": (-1,)}, "positive whole numbers"),
    ({"activation": "rellu"}, "no activation 'rellu'; did you mean 'relu'"),
    ({"seeds": 2}, "from 3 to 1000, not 2"),
    ({"seeds": "three"}, "from 3"),
    ({"seed": -1}, "seed"),
    ({"max_epochs": 0}, "max_epochs is a positive whole number, not 0"),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=[str(options) for options, _ in WRONG])
def test_a_wrong_option_is_refused_in_one_sentence(
    prepared: Prepared, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        make_plan(prepared, Options(**options))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"losses": "mse, mae"}, "losses", ("mse", "mae")),
        ({"losses": "mse"}, "losses", ("mse",)),
        ({"optimizers": ("adam",)}, "optimizers", ("adam",)),
        ({"batch_sizes": "full,1,32"}, "batch_sizes", ("full", 1, 32)),
        ({"batch_sizes": 16}, "batch_sizes", (16,)),
        ({"metric": "mae"}, "metric", "mae"),
        ({"max_epochs": 3}, "epochs", 3),
    ],
)
def test_the_ways_to_write_an_option(
    prepared: Prepared, options: dict[str, Any], name: str, value: object
) -> None:
    assert getattr(make_plan(prepared, Options(**options)), name) == value
