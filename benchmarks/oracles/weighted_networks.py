"""Networks that differ only in the weight of their loss: the data, the training, and how each network is judged."""

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.laws import loss_weights
from benchmarks.laws.loss_weights import EARLY_STOP, HORIZON, LEVELS
from jaxdiff import Sampler, certify_w2, data, grids, information, kernels, losses, networks, plan, targets, train
from jaxdiff.app.comparison_subject import Subject
from jaxdiff.app.two_samples import Judge, batches_of, noise_floor
from jaxdiff.certificate import DISCRETISATION
from jaxdiff.guarantees.certify import certify
from jaxdiff.processes import denoiser_from_score, forward, ou, score_from_denoiser
from jaxdiff.scores import denoiser_of

DIGITS, MIXTURE = "digits", "mixture, d = 8"
STEPS, BATCH = {"quick": 150, "full": 1500}, 128
EVALS, KL_EVALS = 10, 20  # of the sampler whose samples are judged, and of the planned one
SPREAD, COMPONENTS, DIM = 0.2, 8, 8  # of the mixture: deviation of a component
MOMENT_TIME, DRAWS = 2.0, 2**14  # T1 of the exponential moment
FLOORS = 4  # batches of train rows of which a floor is the mean


class Problem(NamedTuple):
    """Rows of the data, their mean and covariance, the dropout of the network, and the exact law or None."""

    name: str
    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray
    mean: np.ndarray
    cov: np.ndarray
    dropout: float
    law: Any = None
    radius: float = 0.0  # of the centres of the mixture


@functools.cache
def problem(name):
    """The digits, or the mixture of DIM dimensions with so many exact rows that networks do not learn them by heart."""
    if name == DIGITS:
        rows = data.load(DIGITS)
        return Problem(name, rows.train, rows.held_out, rows.test, *rows.moments(), 0.1)
    centres = np.random.default_rng(0).normal(size=(COMPONENTS, DIM))
    centres -= centres.mean(0)
    law = targets.mixture(np.full(COMPONENTS, 1 / COMPONENTS), centres, np.full((COMPONENTS, DIM), SPREAD**2))
    rows = np.asarray(law.sample(jax.random.key(0), 2**14 + 1024), np.float32)
    cov = centres.T @ centres / COMPONENTS + SPREAD**2 * np.eye(DIM)
    radius = float(np.linalg.norm(centres, axis=1).max())
    return Problem(name, rows[1024:], rows[:512], rows[512:1024], np.zeros(DIM), cov, 0.0, law, radius)


def trained(case, weight, seed, steps):
    """The Fit of a network on the data of a Problem, with a weight by its name."""
    from flax import nnx

    of_rows = {"mean": case.mean, "cov": case.cov, "dropout": case.dropout}
    network = networks.ResidualMLP(case.train.shape[1], **of_rows, rngs=nnx.Rngs(seed))
    own = loss_weights.scaled(weight, np.linalg.eigvalsh(case.cov))
    options = {"horizon": HORIZON, "early_stop": EARLY_STOP, "batch_size": BATCH, "weight": own}
    return train.fit(network, case.train, jax.random.key(seed), steps=steps, held_out=case.held_out, **options)


def row(name, weight, seed, size):
    """What one network reaches: its error by snr, path KL, distances of its samples, exponential moment."""
    case, began = problem(name), time.perf_counter()
    fitted = trained(case, weight, seed, STEPS[size])
    kept = min(fitted.history, key=lambda one: one["held_out_loss"])["step"]
    about = {"part": "network", "data": name, "weight": weight, "seed": seed, "steps": STEPS[size], "kept": kept}
    about["seconds"] = round(time.perf_counter() - began, 1)
    return about | judged(case, denoiser_of(fitted.network))


def judged(case, denoiser):
    """The measures of a denoiser of a Problem, on its test rows; with the same noise for every denoiser."""
    key, score = jax.random.key(1), score_from_denoiser(denoiser)
    options = {"horizon": HORIZON, "early_stop": EARLY_STOP, "n_nodes": 65, "n_noises": 2}
    curves = [information.loss_curve(denoiser, rows, key, **options) for rows in (case.held_out, case.test)]
    errors = curves[1](np.exp(LEVELS)) if case.law is None else exact_errors(case, denoiser)
    means, nats = loss_weights.in_bands(errors)
    found = {"loss": means.tolist(), "nats": nats.tolist(), "score_nats": float(nats.sum())}
    planned = plan(evals=KL_EVALS, curve=curves[0]).sampler(score)
    found["steps_nats"] = float(certify(planned, curve=curves[1])[DISCRETISATION].value)
    found["path_kl"] = found["score_nats"] + found["steps_nats"]
    sampler = Sampler(kernels.unipc(score, 2), grids.karras(HORIZON, EARLY_STOP, EVALS))
    certificate = certify_w2(sampler, key, rows=case.test, particles=600, reference_steps=160)
    found |= {"w2": float(certificate.known), "w2_steps": float(certificate[DISCRETISATION].value)}
    subject = Subject(denoiser, *curves, case.train, case.test, HORIZON, EARLY_STOP)
    found |= _measures(Judge(subject, key)(next(batches_of(subject, sampler, key))))
    return found | moment(case, score)


def floor(name):
    """The two-sample measures of train rows against test rows, in batches of as many rows as there are test rows."""
    case = problem(name)
    few = case.train[: FLOORS * len(case.test)]
    subject = Subject(None, None, None, few, case.test, HORIZON, EARLY_STOP)
    return {"part": "floor", "data": name} | _measures(noise_floor(subject, jax.random.key(1)))


def _measures(told):
    """Sliced W2 and the classifier's accuracy with their standard errors."""
    found = {}
    for measure in ("sliced_w2", "accuracy"):
        found |= {measure: told[measure]["value"], f"{measure}_error": told[measure]["standard_error"]}
    return found


def exact_errors(case, denoiser):
    """(levels,) E|D - E[X_0 | X_t]|^2 of a denoiser at LEVELS, over noised test rows of a known law."""
    exact, rows = denoiser_from_score(case.law.score), jnp.asarray(case.test)
    z = jax.random.normal(jax.random.key(2), rows.shape, rows.dtype)

    def at(t):
        x = forward(rows, t, z)
        return jnp.mean(jnp.sum((denoiser(x, t) - exact(x, t)) ** 2, axis=1))

    times = jnp.asarray(ou.time(np.exp(LEVELS)), rows.dtype)
    return np.asarray(jax.jit(lambda times: jax.lax.map(at, times))(times), np.float64)


# A component of X_t is N(c mu, s^2 I), s^2 = sigma^2 + c^2 SPREAD^2. Its centre lies within c radius of 0, so -log q_t
# has curvature (1 - c^2 radius^2/s^2)/s^2 or more everywhere (Bakry and Emery).
def moment(case, score):
    """The exponential moment of the score's error at T1, and the mean square error there; nothing for the digits."""
    if case.law is None:
        return {}
    c, s2 = float(ou.alpha(MOMENT_TIME)), float(ou.sigma(MOMENT_TIME)) ** 2 + float(ou.alpha(MOMENT_TIME) * SPREAD) ** 2
    alpha = (1 - (c * case.radius) ** 2 / s2) / s2
    key_rows, key_noise = jax.random.split(jax.random.key(3))
    rows = case.law.sample(key_rows, DRAWS).astype(jnp.float32)
    x = forward(rows, MOMENT_TIME, jax.random.normal(key_noise, rows.shape, rows.dtype))
    found = losses.exponential_moment(score, case.law.score, x, MOMENT_TIME, alpha=alpha)
    return {"alpha": alpha, "moment": found.value, "moment_l2": found.l2, "moment_trusted": found.trusted}
