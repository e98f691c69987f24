"""Scores from what users have, and from other scores: a trained network's, a truncated one."""

from jaxdiff.processes import score_from_denoiser
from jaxdiff.processes.truncation import radius_of, truncated

__all__ = ["denoiser_in_axes", "denoiser_of", "from_network", "radius_of", "truncated"]


def from_network(network):
    """The score of an NNX denoiser network D(x, t), as a pytree: new parameters in it recompile nothing. Needs Flax."""
    return score_from_denoiser(denoiser_of(network))


def denoiser_of(network):
    """The denoiser of an NNX network, as a pytree. Needs Flax."""
    from jaxdiff.training.networks.residual_mlp import denoiser_of

    return denoiser_of(network)


def denoiser_in_axes(network):
    """The denoiser of an NNX network in the coordinates of its principal axes, and the axes. Needs Flax."""
    from jaxdiff.training.networks.residual_mlp import denoiser_in_axes

    return denoiser_in_axes(network)
