"""Forward processes: their clocks, conversions between score, denoiser and noise, and models trained on them."""

from jaxdiff.processes.ball_projection import clipped
from jaxdiff.processes.clocks import ddpm, edm, flow, ve, vp_cosine, vp_linear
from jaxdiff.processes.conversion import from_ou, ou_ends, to_ou
from jaxdiff.processes.default_times import EARLIEST, LATEST
from jaxdiff.processes.models import PREDICTIONS, model_from_score, range_of, score_from_model
from jaxdiff.processes.ou import forward, ou
from jaxdiff.processes.process import Process
from jaxdiff.processes.views import (
    denoiser_from_score,
    noise_from_score,
    score_from_denoiser,
    score_from_noise,
)

__all__ = [
    "EARLIEST",
    "LATEST",
    "PREDICTIONS",
    "Process",
    "clipped",
    "ddpm",
    "denoiser_from_score",
    "edm",
    "flow",
    "forward",
    "from_ou",
    "model_from_score",
    "noise_from_score",
    "ou",
    "ou_ends",
    "range_of",
    "score_from_denoiser",
    "score_from_model",
    "score_from_noise",
    "to_ou",
    "ve",
    "vp_cosine",
    "vp_linear",
]
