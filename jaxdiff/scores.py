"""Scores from what users have: a trained network."""

from jaxdiff.networks.residual_mlp import denoiser_of
from jaxdiff.processes import score_from_denoiser

__all__ = ["denoiser_of", "from_network"]


def from_network(network):
    """The score of an NNX denoiser network D(x, t), as a pytree: new parameters in it recompile nothing."""
    return score_from_denoiser(denoiser_of(network))
