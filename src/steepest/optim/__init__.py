"""Gradient optimizers: drop-ins for ``torch.optim``'s, each written once as an update rule.

``OPTIMIZERS`` maps the word used on the command line to its entry: class, fixed options, rates, texts.
"""

from steepest.optim import adam, adamw, rmsprop, sgd
from steepest.optim.adam import Adam
from steepest.optim.adamw import AdamW
from steepest.optim.rmsprop import RMSprop
from steepest.optim.rule import OptimizerEntry, Rule
from steepest.optim.sgd import SGD

__all__ = ["OPTIMIZERS", "SGD", "Adam", "AdamW", "OptimizerEntry", "RMSprop", "Rule"]

# In the order in which a comparison takes them.
OPTIMIZERS = {entry.name: entry for module in (sgd, rmsprop, adam, adamw) for entry in module.ENTRIES}
