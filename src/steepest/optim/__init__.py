"""Gradient optimizers: drop-ins for ``torch.optim``'s and more, each written once as an update rule.

``OPTIMIZERS`` maps the word used on the command line to its entry: class, fixed options, rates, texts.
"""

from steepest.optim import (
    adadelta,
    adagrad,
    adam,
    adamax,
    adamw,
    adan,
    ademamix,
    adopt,
    asgd,
    lamb,
    lars,
    lion,
    nadam,
    radam,
    rmsprop,
    rprop,
    sgd,
)
from steepest.optim.adadelta import Adadelta
from steepest.optim.adafactor import Adafactor
from steepest.optim.adagrad import Adagrad
from steepest.optim.adam import Adam
from steepest.optim.adamax import Adamax
from steepest.optim.adamw import AdamW
from steepest.optim.adan import Adan
from steepest.optim.ademamix import AdEMAMix
from steepest.optim.adopt import ADOPT
from steepest.optim.asgd import ASGD
from steepest.optim.from_rule import from_rule
from steepest.optim.fused import OptimizerSwitches
from steepest.optim.lamb import LAMB
from steepest.optim.lars import LARS
from steepest.optim.lion import Lion
from steepest.optim.muon import Muon
from steepest.optim.nadam import NAdam
from steepest.optim.radam import RAdam
from steepest.optim.rmsprop import RMSprop
from steepest.optim.rprop import Rprop
from steepest.optim.rule import OptimizerEntry, Rule
from steepest.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from steepest.optim.sgd import SGD
from steepest.optim.sparse_adam import SparseAdam

__all__ = [
    "ADOPT",
    "ASGD",
    "LAMB",
    "LARS",
    "OPTIMIZERS",
    "SGD",
    "AdEMAMix",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Lion",
    "Muon",
    "NAdam",
    "OptimizerEntry",
    "OptimizerSwitches",
    "RAdam",
    "RMSprop",
    "Rprop",
    "Rule",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "SparseAdam",
    "from_rule",
]

# In the order in which a comparison takes them: plain descent, adaptive rates, what came after, by layer.
_MODULES = (
    sgd, rmsprop, adam, adamw,
    adagrad, adadelta, adamax, nadam, radam, rprop, asgd,
    lion, adopt, ademamix, adan, lamb, lars,
)  # fmt: skip
OPTIMIZERS = {entry.name: entry for module in _MODULES for entry in module.ENTRIES}
