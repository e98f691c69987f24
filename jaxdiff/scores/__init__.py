"""Scores of networks, truncated scores, conditions, guidance, and posteriors of linear inverse problems."""

from jaxdiff.conditions import conditioned
from jaxdiff.processes.ball_projection import radius_of, truncated
from jaxdiff.scores.guided import guided
from jaxdiff.scores.linear_map import LinearMap, linear_map
from jaxdiff.scores.mmps import mmps
from jaxdiff.scores.networks import denoiser_in_axes, denoiser_of, from_network
from jaxdiff.scores.pi_gdm import pi_gdm
from jaxdiff.scores.reconstruction_guidance import reconstruction_guidance
from jaxdiff.scores.tmpd import tmpd

__all__ = [
    "LinearMap",
    "conditioned",
    "denoiser_in_axes",
    "denoiser_of",
    "from_network",
    "guided",
    "linear_map",
    "mmps",
    "pi_gdm",
    "radius_of",
    "reconstruction_guidance",
    "tmpd",
    "truncated",
]
