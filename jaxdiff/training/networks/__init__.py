"""Flax score networks: denoisers D(x, t) with OU times t. Importing this package imports Flax."""

from jaxdiff.training.networks.residual_mlp import ResidualMLP

__all__ = ["ResidualMLP"]
