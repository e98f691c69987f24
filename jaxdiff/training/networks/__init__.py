"""Flax score networks: denoisers D(x, t) with OU times t. Importing this package imports Flax."""

from jaxdiff.training.networks.cost import describe, flops, parameters
from jaxdiff.training.networks.dit import DiT
from jaxdiff.training.networks.pure import PureNetwork
from jaxdiff.training.networks.residual_mlp import ResidualMLP
from jaxdiff.training.networks.unet import UNet

__all__ = ["DiT", "PureNetwork", "ResidualMLP", "UNet", "describe", "flops", "parameters"]
