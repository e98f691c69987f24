"""Checkpoints: the parameters of a network, and the whole state of a training that can be resumed."""

from jaxdiff.training.checkpoints.network import load_network, save_network
from jaxdiff.training.checkpoints.steps import Checkpoints

__all__ = ["Checkpoints", "load_network", "save_network"]
