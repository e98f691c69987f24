"""How far are posterior samples of DPS, Pi-GDM, TMPD and MMPS from the exact posterior, and is it the steps?

All denoisers are exact, so every error belongs to the method or to the steps of the sampler.

Normal law, d = 6, three observations (laws/inverse_problems.py): samples are an affine function of noise and
observation, so mean and covariance are found without a random draw. Reported are the root mean square over
observations of the mean's bias in the worst direction, and the narrowest and widest direction: all in standard
deviations of the exact posterior. The biases with 320 and 640 steps of UniPC are extrapolated to infinitely many, and
compared with the limit of the method's ODE by moment equations (oracles/linear_posteriors.py), which also have the
limit of its SDE.

Mixture in the plane, one observation: sliced W2 and total variation on a grid of cells between samples and the
posterior by quadrature (oracles/plane_posteriors.py), root mean squares over four observations. The floor is that of
exact draws.

Calibration: with X_0 from the law and y from X_0, the rank of X_0 among exact posterior samples given y is uniform. The
ranks along the observed direction and across it are tested by chi-square. An exact sampler is rejected with probability
1 % for each law.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from benchmarks.harness import drawing, studies
from benchmarks.laws.inverse_problems import ACROSS, PLANE_MIXTURE, PLANE_NORMAL, ROW, six_dimensions
from benchmarks.oracles import linear_posteriors as moments
from benchmarks.oracles import normal_mixtures, plane_posteriors
from benchmarks.samplers.inverse_problems import METHODS, MMPS, draws, grid_of, score_of
from jaxdiff import kernels, metrics, plots, sample, targets
from jaxdiff.processes import denoiser_from_score

NAME = "posterior"
QUESTION = "How far are posterior samples of DPS, Pi-GDM, TMPD and MMPS from the exact posterior, and is it the steps?"
HORIZON, EARLY_STOP, PLANE_STOP = 8.0, 1e-5, 1e-4
NOISES = {"quick": (0.2,), "full": (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)}  # of the normal law
STEPS = (10, 20, 40, 80, 160, 320, 640)
ORDER = 3  # of UniPC-2
PLANE_NOISES, PLANE_STEPS = {"quick": (0.3,), "full": (0.1, 0.3, 1.0)}, (16, 32, 64, 128)
OBSERVATIONS, PARTICLES, FLOORS = 4, {"quick": 1000, "full": 4096}, 4
TRUTHS, DRAWS, BINS, RANK_STEPS, RANK_NOISE = {"quick": 200, "full": 1000}, 63, 16, 64, 0.3
FALSE_ALARM = 0.01  # for a method and a law: half of it for each of the two directions
EXACT, UNIPC, ANCESTRAL = "exact draws", "UniPC", "ancestral"
CLOSE = 1.1  # times the floor, up to which a distance counts as the floor


def normal_rows(size):
    """A row for each noise, method and number of steps, and one for the limits."""
    mean, cov, matrix = six_dimensions()
    denoiser, grids = denoiser_from_score(targets.gaussian(mean, cov).score), {}
    for n in STEPS:
        grids[n] = grid_of(HORIZON, EARLY_STOP, n)
    for noise_std in NOISES[size]:
        problem = moments.Problem(mean, cov, matrix, noise_std)
        y = problem.observations()
        exact = problem.posterior(y, EARLY_STOP)
        for method in METHODS:
            about, found = {"law": "normal, d = 6", "method": method, "noise_std": noise_std}, {}
            for n, grid in grids.items():
                found[n] = affine_samples(method, denoiser, problem, y, grid)
                yield about | {"part": "steps", "N": n} | told("", found[n], exact)
            last, before = found[STEPS[-1]], found[STEPS[-2]]
            gain = 2**ORDER - 1
            beyond = [a + (a - b) / gain for a, b in zip(last, before, strict=True)]
            yield about | {"part": "limit"} | told("", beyond, exact) | limits(method, problem, y, exact)


def affine_samples(method, denoiser, problem, y, grid):
    """Means (len(y), d) and covariance of samples of a method by UniPC, whose end points are affine in start and y."""
    d = len(problem.mean)
    start = np.vstack([np.zeros((len(y), d)), np.eye(d)])
    given = np.vstack([y, np.tile(y[:1], (d, 1))])
    score = score_of(method, denoiser, problem.matrix, given, problem.noise_std)
    ends = np.asarray(sample(kernels.unipc(score, 2), jnp.asarray(start), grid, jax.random.key(0)))
    root = ends[len(y) :] - ends[0]
    return ends[: len(y)], root.T @ root


def limits(method, problem, y, exact):
    """The biases of a method's ODE and SDE in infinitely many steps, by moment equations."""
    of = lambda noisy: moments.limit(method, problem, y, HORIZON, EARLY_STOP, noisy=noisy)
    return told("ode_", of(False), exact) | told("sde_", of(True), exact)


def told(prefix, found, exact):
    """The three biases as columns; None where a run overflowed."""
    finite = all(np.isfinite(part).all() and np.abs(part).max() < 1e100 for part in found)
    values = moments.in_deviations(found, exact) if finite else (None,) * 3
    return {f"{prefix}{name}": value for name, value in zip(("mean", "narrowest", "widest"), values, strict=True)}


def plane_rows(size):
    """A row for each noise, method, sampler and number of steps on the mixture in the plane."""
    denoiser, n = denoiser_from_score(targets.mixture(*PLANE_MIXTURE).score), PARTICLES[size]
    for noise_std in PLANE_NOISES[size]:
        rng = np.random.default_rng(1)
        y = observed(normal_mixtures.draws(*PLANE_MIXTURE, OBSERVATIONS, rng), noise_std, rng)
        masses = [plane_posteriors.density(*PLANE_MIXTURE, ROW, one, noise_std) for one in y]
        distance = functools.partial(distances, masses, [plane_posteriors.draws(one, 4 * n, rng) for one in masses])
        floors = [distance([plane_posteriors.draws(one, n, rng) for one in masses]) for _ in range(FLOORS)]
        floor = {f"{name}_floor": max(one[name] for one in floors) for name in floors[0]}
        for method in METHODS:
            score = score_of(method, denoiser, ROW, np.repeat(y, n, axis=0), noise_std)
            for sampler, steps in (*((UNIPC, one) for one in PLANE_STEPS), (ANCESTRAL, PLANE_STEPS[-1])):
                kernel = kernels.ancestral if sampler == ANCESTRAL else kernels.unipc
                grid = grid_of(HORIZON, PLANE_STOP, steps)
                x = draws(score, n * OBSERVATIONS, 2, grid, jax.random.key(2), kernel=kernel)
                found = distance(x.reshape(OBSERVATIONS, n, 2)) if np.isfinite(x).all() else dict.fromkeys(floors[0])
                about = {"part": "plane", "law": "mixture, d = 2", "method": method, "noise_std": noise_std}
                yield about | {"sampler": sampler, "N": steps} | found | floor


def observed(x, noise_std, rng):
    """Observations (n, 1) of rows x (n, 2)."""
    return x @ ROW.T + noise_std * rng.normal(size=(len(x), 1))


def distances(masses, exact, x):
    """Root mean squares over the observations of sliced W2 and total variation of samples x[i] (n, 2)."""
    w2 = [metrics.sliced_w2(a, b, jax.random.key(0), n_projections=64).value for a, b in zip(x, exact, strict=True)]
    cells = map(plane_posteriors.cell_masses, masses)
    variation = [plane_posteriors.total_variation(a, b) for a, b in zip(x, cells, strict=True)]
    mean = lambda values: float(np.sqrt(np.mean(np.square(values))))
    return {"sliced_w2": mean(w2), "tv": mean(variation)}


def rank_rows(size):
    """A row for each law, method and direction: how many ranks fall into each bin, and the chance of that."""
    for law, parts in {"normal, d = 2": PLANE_NORMAL, "mixture, d = 2": PLANE_MIXTURE}.items():
        rng, n = np.random.default_rng(2), TRUTHS[size]
        truth = normal_mixtures.draws(*parts, n, rng)
        y = observed(truth, RANK_NOISE, rng)
        for method in (*METHODS, EXACT):
            x = posterior_draws(method, parts, y, rng)
            for direction, unit in {"observed": ROW[0], "hidden": ACROSS}.items():
                ranks = np.sum(x @ unit < (truth @ unit)[:, None], axis=1)
                counts = np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)
                chance = float(stats.chisquare(counts).pvalue)
                about = {"part": "ranks", "law": law, "method": method, "direction": direction, "N": RANK_STEPS}
                yield about | {"noise_std": RANK_NOISE, "chance": chance, "counts": counts.tolist()}


def posterior_draws(method, parts, y, rng):
    """DRAWS posterior samples for each y, (len(y), DRAWS, 2)."""
    if method == EXACT:
        posteriors = [normal_mixtures.posterior(*parts, ROW, one, RANK_NOISE) for one in y]
        return np.stack([normal_mixtures.draws(*one, DRAWS, rng) for one in posteriors])
    denoiser = denoiser_from_score(targets.mixture(*parts).score)
    score = score_of(method, denoiser, ROW, np.repeat(y, DRAWS, axis=0), RANK_NOISE)
    x = draws(score, len(y) * DRAWS, 2, grid_of(HORIZON, PLANE_STOP, RANK_STEPS), jax.random.key(3))
    return x.reshape(len(y), DRAWS, 2)


def rows(quick, repeats):
    """The rows of the three parts."""
    size = "quick" if quick else "full"
    return [*normal_rows(size), *plane_rows(size), *rank_rows(size)]
