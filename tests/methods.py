"""Samplers as an independent hand would write them: every step integrates its frozen equation, numerically.

NumPy and SciPy only, one-dimensional particles (P,), float64; nothing here knows the package, or a closed form of it. A
method is a generator: given the score, a grid of decreasing times, the start x (P,) and increments z
(n_steps, increments, P), it yields the position at every later node.
"""

from itertools import pairwise

import numpy as np
import oracles
from scipy.integrate import quad_vec, solve_ivp
from scipy.interpolate import KroghInterpolator
from scipy.linalg import cholesky, expm
from scipy.optimize import brentq

TIGHT = {"method": "DOP853", "rtol": 3e-14, "atol": 1e-14}


def noise_variance(t):
    """sigma_t^2."""
    return -np.expm1(-2 * t)


def level(t):
    """log(alpha/sigma)."""
    return -t - np.log(noise_variance(t)) / 2


def time_of(u):
    """The time at which log(alpha/sigma) is u."""
    return np.log1p(np.exp(-2 * u)) / 2


def seen_by(score, x, t, what):
    """The score, the noise -sigma s, or the denoiser (x + sigma^2 s)/alpha."""
    s = score(x, t)
    return {"score": s, "noise": -np.sqrt(noise_variance(t)) * s, "denoiser": (x + noise_variance(t) * s) * np.exp(t)}[
        what
    ]


def flow(t, t_next, x, what, value, eta=0.0):
    """Mean and deviation of dY = (Y + (1 + eta^2) s) du + eta sqrt(2) dB from x, with s made of `value`(level)."""

    def slope(u, state):
        sigma2, y, variance = noise_variance(time_of(u)), state[:-1], state[-1]
        known, pull = value(u), 0.0
        if what == "noise":
            known = -known / np.sqrt(sigma2)
        if what == "denoiser":
            known, pull = (np.exp(-time_of(u)) * known - y) / sigma2, -1 / sigma2
        drift = y + (1 + eta**2) * known
        return sigma2 * np.append(drift, 2 * (1 + (1 + eta**2) * pull) * variance + 2 * eta**2)

    end = solve_ivp(slope, (level(t), level(t_next)), np.append(x, 0.0), **TIGHT).y[:, -1]
    return end[:-1], np.sqrt(end[-1])


def frozen(what, eta):
    """One thing frozen over a step of the eta family."""

    def run(score, grid, x, z):
        for k, (t, t_next) in enumerate(pairwise(grid)):
            value = seen_by(score, x, t, what)
            mean, deviation = flow(t, t_next, x, what, lambda u, value=value: value, eta)
            x = mean + deviation * (z[k, 0] if eta > 0 else 0.0)
            yield x

    return run


def explicit_euler(weight, diffusion):
    """Y + h (Y + weight s) and noise of variance `diffusion` h."""

    def run(score, grid, x, z):
        for k, (t, t_next) in enumerate(pairwise(grid)):
            h = t - t_next
            x = x + h * (x + weight * score(x, t)) + (np.sqrt(diffusion * h) * z[k, 0] if diffusion else 0.0)
            yield x

    return run


def of_one_step(name, **options):
    """A method of oracles.one_step, with what it is told of the posterior variance."""
    variance = options.pop("variance", lambda t, x: 0.0)

    def run(score, grid, x, z):
        for k, (t, t_next) in enumerate(pairwise(grid)):
            told = {"variance": variance(t, x)} | options
            mean, spread = oracles.one_step(name, t, t_next, score(x, t), x, **told)
            x = mean + np.sqrt(spread) * (z[k, 0] if len(z[k]) else 0.0)
            yield x

    return run


def polynomial(times, values, along):
    """The polynomial through values at times, of the level: in the level itself, or in the time."""
    nodes = [along(t) for t in times]
    through = KroghInterpolator(np.array(nodes), np.array(values))
    return lambda u: through(along(time_of(u)))


def extrapolated(t, t_next, times, values, order, form):
    """What stands for the denoiser along a step: form "exact", or as DPM-Solver++ or UniPC publish it."""
    times, values = times[:order], values[:order]
    exact = polynomial(times, values, level)
    if form == "exact" or len(times) == 1 or (form == "unipc" and len(times) == 3):
        return exact
    if len(times) == 2:  # the line, at the middle of the step
        middle = exact((level(t) + level(t_next)) / 2)
        return lambda u: middle
    step = level(t_next) - level(t)
    curve = exact(level(t) + step) - 2 * exact(level(t)) + exact(level(t) - step)  # twice what is beside ((u - l)/h)^2
    return lambda u: exact(u) - curve / 4 * ((u - level(t)) / step) ** 2


def within_reach(times, t_next, most, eta=0.0, what="denoiser", along=level):
    """How many of the times, newest first, a step to t_next may use, at most `most`.

    A step more than twice as long as one of the steps behind it uses a node only while an error of size 1 in what was
    seen, of any signs, moves x/alpha by 3 at most (for the noise, x/sigma).
    """
    nodes, a = [along(t) for t in times], 1 + eta**2
    start, end = level(times[0]), level(t_next)
    weight = (lambda u: np.exp(-u)) if what == "noise" else (lambda u: np.exp(-a * (end - u)))
    count = 1
    while count < min(most, len(times)):
        if abs(along(t_next) - nodes[0]) > 2.000001 * np.abs(np.diff(nodes[: count + 1])).min():
            unit = polynomial(times[: count + 1], np.eye(count + 1), along)
            moved, _ = quad_vec(lambda u, unit=unit: weight(u) * unit(u), start, end, epsrel=1e-10)
            if np.abs(moved).sum() / quad_vec(weight, start, end)[0] * -np.expm1(-a * (end - start)) > 3:
                break
        count += 1
    return count


def vp_time(t):
    """The time u at which beta = 0.1 + 19.9 u has made alpha what it is at OU time t: 0.1 u + 9.95 u^2 = 2 t."""
    return brentq(lambda u: 0.1 * u + 9.95 * u**2 - 2 * t, 0, 2, xtol=1e-16, rtol=1e-14)


def multistep(order, what="denoiser", eta=0.0, form="exact", corrector=0, lower_final=False, time=lambda t: t):
    """Polynomials through what was seen at up to `order` nodes; `corrector` nodes correct, the new one among them.

    lower_final: at most as many as steps are left, that step included; UniPC corrects with one more.
    """

    def run(score, grid, x, z, order=order, corrector=corrector):
        times, values, most = [], [], (order, corrector)
        before = noise = None
        for k, (t, t_next) in enumerate(pairwise(grid)):
            value = seen_by(score, x, t, what)
            times, values = [t, *times], [value, *values]
            if lower_final:
                left = len(grid) - 1 - k
                order, corrector = min(most[0], left), min(most[1], left + 1 + (form == "unipc"))
            if corrector and k > 0:
                count = 1 + (within_reach(times[1:], t, corrector - 1, eta) if corrector > 1 else 0)
                known = polynomial(times[:count], values[:count], level)
                if form == "unipc" and count == 2:  # half of each
                    half = (values[0] + values[1]) / 2
                    known = lambda u, half=half: half
                x = flow(grid[k - 1], t, before, what, known, eta)[0] + noise
            count = within_reach(times, t_next, order, eta, what, time if what == "noise" else level)
            along = (
                polynomial(times[:count], values[:count], time)
                if what == "noise"
                else extrapolated(t, t_next, times, values, count, form)
            )
            mean, deviation = flow(t, t_next, x, what, along, eta)
            before, noise = x, deviation * (z[k, 0] if eta > 0 else 0.0)
            x = mean + noise
            yield x

    return run


def dpm_solver_as_published(order):
    """multistep_dpm_solver_{first,second,third}_update of the authors' code, algorithm_type "dpmsolver++"."""

    def run(score, grid, x, z):
        lambdas, models = [], []
        for t, t_next in pairwise(grid):
            lambdas, models = [level(t), *lambdas], [seen_by(score, x, t, "denoiser"), *models]
            h = level(t_next) - lambdas[0]
            sigmas, alpha = np.sqrt(noise_variance(np.array([t, t_next]))), np.exp(-t_next)
            phi_1 = np.expm1(-h)
            x = sigmas[1] / sigmas[0] * x - alpha * phi_1 * models[0]
            if min(order, len(models)) == 2:
                d1 = (models[0] - models[1]) * h / (lambdas[0] - lambdas[1])
                x = x - 0.5 * alpha * phi_1 * d1
            if min(order, len(models)) == 3:
                r0, r1 = (lambdas[0] - lambdas[1]) / h, (lambdas[1] - lambdas[2]) / h
                d1_0, d1_1 = (models[0] - models[1]) / r0, (models[1] - models[2]) / r1
                d1, d2 = d1_0 + r0 / (r0 + r1) * (d1_0 - d1_1), (d1_0 - d1_1) / (r0 + r1)
                phi_2 = phi_1 / h + 1
                phi_3 = phi_2 / h - 0.5
                x = x + alpha * phi_2 * d1 - alpha * phi_3 * d2
            yield x

    return run


def unipc_as_published(order):
    """multistep_uni_pc_bh_update of the authors' code, variant "bh2", data prediction; the last is not corrected."""

    def systems(rks, h, p):
        """R and b of rho: sum_m rho_m r_m^(i-1) = b_i."""
        h_phi, factorial, r, b = np.expm1(-h) / -h - 1, 1.0, [], []
        for i in range(1, p + 1):
            r.append(np.power(rks, i - 1))
            b.append(h_phi * factorial / np.expm1(-h))
            factorial *= i + 1
            h_phi = h_phi / -h - 1 / factorial
        return np.array(r), np.array(b)

    def run(score, grid, x, z):
        lambdas, models = [level(grid[0])], [seen_by(score, x, grid[0], "denoiser")]
        for k, (t, t_next) in enumerate(pairwise(grid)):
            p, h = min(order, k + 1), level(t_next) - lambdas[0]
            rks = np.array([(lambdas[i] - lambdas[0]) / h for i in range(1, p)] + [1.0])
            d1s = [(models[i] - models[0]) / rks[i - 1] for i in range(1, p)]
            r, b = systems(rks, h, p)
            scale = np.exp(-t_next) * np.expm1(-h)
            plain = np.sqrt(noise_variance(t_next) / noise_variance(t)) * x - scale * models[0]
            rhos = np.array([0.5]) if p == 2 else np.linalg.solve(r[:-1, :-1], b[:-1])
            weighed = lambda rhos, d1s: sum((rho * d for rho, d in zip(rhos, d1s, strict=True)), 0.0)
            predicted = plain - scale * weighed(rhos, d1s)
            yield predicted
            found = seen_by(score, predicted, t_next, "denoiser")
            rhos = np.array([0.5]) if p == 1 else np.linalg.solve(r, b)
            x = plain - scale * weighed(rhos, [*d1s, found - models[0]])
            lambdas, models = [level(t_next), *lambdas], [found, *models]

    return run


TABLEAUX = {
    "heun": ([[], [1.0]], [0.5, 0.5], [0.0, 1.0]),
    "rk4": ([[], [0.5], [0.0, 0.5], [0.0, 0.0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], [0.0, 0.5, 0.5, 1.0]),
}


def runge_kutta(name, churn=0.0, noise_scale=1.0, between=(0.0, np.inf)):
    """dy/dv = noise in y = x/alpha, v = sigma/alpha, by a Butcher tableau; with EDM's churn before each step."""
    stages, weights, places = TABLEAUX[name]

    def run(score, grid, x, z):
        slope = lambda y, v: seen_by(score, y / np.sqrt(1 + v**2), np.log1p(v**2) / 2, "noise")
        for k, (t, t_next) in enumerate(pairwise(grid)):
            y, v, v_next = x * np.exp(t), np.exp(-level(t)), np.exp(-level(t_next))
            if churn > 0 and between[0] <= v <= between[1]:
                grown = v * (1 + min(churn / (len(grid) - 1), np.sqrt(2) - 1))
                y, v = y + noise_scale * np.sqrt(grown**2 - v**2) * z[k, 0], grown
            found = []
            for coefficients, place in zip(stages, places, strict=True):
                inside = y + (v_next - v) * sum((c * one for c, one in zip(coefficients, found, strict=True)), 0.0)
                found.append(slope(inside, v + place * (v_next - v)))
            y = y + (v_next - v) * sum(w * one for w, one in zip(weights, found, strict=True))
            x = y * np.exp(-t_next)
            yield x

    return run


def seeds(score, grid, x, z):
    """The noise of a stage half way in the level, reached with the first of two independent increments."""
    for k, (t, t_next) in enumerate(pairwise(grid)):
        half = time_of((level(t) + level(t_next)) / 2)
        first = seen_by(score, x, t, "noise")
        mean, early = flow(t, half, x, "noise", lambda u, first=first: first, 1.0)
        inside = seen_by(score, mean + early * z[k, 0], half, "noise")
        mean, _ = flow(t, t_next, x, "noise", lambda u, inside=inside: inside, 1.0)
        _, late = flow(half, t_next, 0 * x, "noise", lambda u: 0.0, 1.0)
        x = mean + np.exp(half - t_next) * early * z[k, 0] + late * z[k, 1]
        yield x


def stochastic_runge_kutta(score, grid, x, z):
    """Exponential Euler predicts; then the score is the line in time between its two values."""
    for k, (t, t_next) in enumerate(pairwise(grid)):
        first = score(x, t)
        mean, deviation = flow(t, t_next, x, "score", lambda u, first=first: first, 1.0)
        second = score(mean + deviation * z[k, 0], t_next)
        line = polynomial([t, t_next], [first, second], lambda t: t)
        x = flow(t, t_next, x, "score", line, 1.0)[0] + deviation * z[k, 0]
        yield x


def ode_then_noise(score, grid, x, z):
    """Two intervals of the ODE with the denoiser frozen, one of the forward equation back."""
    for k, (t, t_next) in enumerate(pairwise(grid)):
        beyond = grid[min(k + 2, len(grid) - 1)]
        value = seen_by(score, x, t, "denoiser")
        x = flow(t, beyond, x, "denoiser", lambda u, value=value: value)[0]
        forward = expm((t_next - beyond) * np.array([[-2.0, 2.0], [0.0, 0.0]]))  # of the variance: P' = 2 - 2 P
        x = np.exp(beyond - t_next) * x + np.sqrt(forward[0, 1]) * z[k, 0]
        yield x


def randomized_midpoint(seed):
    """The ODE's linear part exact, and h times what the score at a random time brings to the end."""

    def run(score, grid, x, z):
        share = np.random.default_rng(seed).uniform(size=len(grid) - 1)
        for u, (t, t_next) in zip(share, pairwise(grid), strict=True):
            inside = t - u * (t - t_next)
            first = score(x, t)
            there = score(flow(t, inside, x, "score", lambda u, first=first: first)[0], inside)
            x = expm([[t - t_next]])[0, 0] * x + (t - t_next) * expm([[inside - t_next]])[0, 0] * there
            yield x

    return run


def langevin(scheme, variance=None, friction=None):
    """Score frozen over a running time h; a linear SDE dX = (A X + b s) du + C dB by matrix exponentials."""
    if scheme == "plain":
        drift, push, diffusion = np.zeros((1, 1)), np.ones(1), np.array([[np.sqrt(2.0)]])
    elif scheme == "underdamped":
        drift, push = np.array([[0.0, 1.0], [0.0, -friction]]), np.array([0.0, 1.0])
        diffusion = np.array([[0.0], [np.sqrt(2 * friction)]])

    def moved(h, state, s, drawn):
        """Mean and root of the covariance after h; state (size, P), its momentum first `drawn` from N(0, 1) or not."""
        if scheme == "exponential":  # s + x/v is frozen, -x/v is not
            a, b, c = np.array([[-1 / variance]]), np.ones(1), np.array([[np.sqrt(2.0)]])
            s = s + state[0] / variance
        else:
            a, b, c = drift, push, diffusion
        size = len(a)
        whole = expm(h * np.block([[a, b[:, None]], [np.zeros((1, size + 1))]]))
        covariance = quad_vec(lambda u: expm(u * a) @ c @ c.T @ expm(u * a).T, 0, h, epsabs=1e-15, epsrel=1e-13)[0]
        if drawn:
            covariance = covariance + expm(h * a)[:, 1:] @ expm(h * a)[:, 1:].T
        root = cholesky(covariance, lower=True) if h > 0 else covariance
        return whole[:size, :size] @ state + whole[:size, size:] * s, root

    def steps(score, state, time, hs, z):
        for k, (h, each) in enumerate(zip(hs, z, strict=True)):
            mean, root = moved(h, state, score(state[0], time), drawn=k == 0 and scheme == "underdamped")
            state = mean + root @ each
            yield state

    return steps


def at_one_time(scheme, time, **options):
    """Langevin on a grid of its own running time."""

    def run(score, grid, x, z):
        state = np.stack([x] if scheme != "underdamped" else [x, 0 * x])
        for x, *_ in langevin(scheme, **options)(score, state, time, -np.diff(grid), z):
            yield x

    return run


def alone(method):
    """A method of one step as (score, t, t_next, x, z) -> x."""
    return lambda score, t, t_next, x, z: next(method(score, np.array([t, t_next]), x, z[None]))


def remembering(order):
    """DPM-Solver++ as (score, t, t_next, x, z) -> x, which keeps what it saw."""
    times, values = [], []

    def step(score, t, t_next, x, z):
        times.insert(0, t)
        values.insert(0, seen_by(score, x, t, "denoiser"))
        count = within_reach(times, t_next, order)
        return flow(t, t_next, x, "denoiser", extrapolated(t, t_next, times, values, count, "published"))[0]

    return step


def predictor_corrector(predict, scheme, m, step_size, **options):
    """A step of `predict`(), and m of Langevin at the time arrived at; options are functions of that time."""

    def run(score, grid, x, z):
        step, size = predict(), 2 if scheme == "underdamped" else 1
        for k, (t, t_next) in enumerate(pairwise(grid)):
            first = len(z[k]) - m * size
            x = step(score, t, t_next, x, z[k, :first])
            state, told = np.stack([x] if size == 1 else [x, 0 * x]), {n: of(t_next) for n, of in options.items()}
            increments = z[k, first:].reshape(m, size, -1)
            *_, (x, *_) = langevin(scheme, **told)(score, state, t_next, [step_size(t_next)] * m, increments)
            yield x

    return run
