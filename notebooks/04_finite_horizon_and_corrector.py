# %% [markdown]
# # 4. A finite horizon, and the corrector
#
# Sampling starts from standard normal noise at a *horizon* T1. If T1 is short, the noised data are not yet normal
# there, and the start is wrong. Pedrotti, Maas and Mondelli propose to correct the start at T1 itself: first run
# Langevin dynamics *at* T1 (the corrector), then reverse time (the predictor). This notebook runs this scheme, says
# when it helps and when the same work is better spent elsewhere, and shows what can be proved.
#
# Words: *OU time* t is the noise level, X_t = e^-t X_0 + sqrt(1 - e^-2t) Z. The *score* is the gradient of the log
# density of X_t. *W2* is the Wasserstein distance: how far, in root mean square, points must be moved to make one set
# of samples into the other.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.tree_util import Partial

import jaxdiff
from jaxdiff import bounds, grids, metrics, noise, prediction_correction, processes, scores, targets

SMALL = bool(os.environ.get("JAXDIFF_SMALL"))  # fewer particles and horizons, for a quick run of the whole file
COUNT, HORIZONS = (5_000, np.geomspace(0.3, 5, 3)) if SMALL else (200_000, np.geomspace(0.3, 5, 9))
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"])
plt.rcParams |= {"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
EARLY_STOP = 1e-3

# %% [markdown]
# The data: two bumps on the line, at -2 and 2, with 30 and 70 percent. Their score is a formula.

# %%
law = targets.mixture([0.3, 0.7], [[-2.0], [2.0]], [[0.05], [0.05]])
key = jax.random.key(0)
start = noise.initial(key, np.arange(COUNT), 1)

# %% [markdown]
# ## What is run
#
# `scheme` describes the run without running it: Langevin at T1 for a time T2, then the probability-flow ODE, which
# reverses time without noise. Langevin steps longer than a limit diverge; the default is about a twentieth of that
# limit, which leaves the variance wrong by at most 5 %.

# %%
print(prediction_correction.scheme(law.score, horizon=1.0, langevin_time=4.0))

# %% [markdown]
# `predict_correct` runs it, as one compiled program. With T1 = 1 and no Langevin the two bumps get wrong fractions of
# the samples; with Langevin for a time of 4 the fractions are nearly right. The line is the law itself.

# %%
side = np.linspace(-4, 4, 401, dtype=np.float32)
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharex=True, sharey=True, layout="constrained")
for ax, langevin_time in zip(axes, (0.0, 4.0), strict=True):
    x = jaxdiff.predict_correct(law.score, start, key, horizon=1.0, langevin_time=langevin_time)
    ax.hist(x[:, 0], bins=120, range=(-4, 4), density=True, color="C4", label="samples")
    ax.plot(side, np.exp(law.log_density(side[:, None], EARLY_STOP)), color="k", lw=1, label="law")
    ax.set(title=f"T1 = 1, Langevin time {langevin_time:g}", xlabel="x", ylabel="density")
    print(f"Langevin time {langevin_time:g}: fraction in the right bump {np.mean(x > 0):.3f}, should be 0.7")
axes[0].legend()
plt.show()

# %% [markdown]
# ## When it helps: T1 is given and too short
#
# How far are the samples from the data, as T1 grows? Every run has 32 evaluations of the score in the reversal, and 0,
# 16 or 64 Langevin steps before it. At short horizons Langevin removes much of the error. At T1 = 5 there is no error
# of the start to remove, and Langevin only adds the error of its own steps, a variance that is a little too large. The
# dotted line is the distance between two sets of exact samples: smaller distances cannot be distinguished from 0.

# %%
noised = [
    processes.forward(law.sample(k, COUNT), EARLY_STOP, noise.initial(k, np.arange(COUNT), 1))
    for k in jax.random.split(key)
]


def w2(score, horizon, langevin_steps, reversal_steps, **options):
    """W2 to exact samples after Langevin steps a twentieth as long as the limit, then the reversal."""
    langevin_time = langevin_steps * 0.1 * processes.ou.sigma(horizon) ** 2
    grid = grids.log_snr(horizon, EARLY_STOP, reversal_steps)
    options |= {"horizon": horizon, "langevin_time": langevin_time, "grid": grid}
    options |= {"step_size": langevin_time / langevin_steps} if langevin_steps else {}
    x = jaxdiff.predict_correct(score, start, key, **options)
    return metrics.sliced_w2(x, noised[0], key, n_projections=2).value  # on the line every direction is the same


floor = metrics.sliced_w2(noised[1], noised[0], key, n_projections=2).value
figure, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
for langevin_steps, marker in zip((0, 16, 64), "os^", strict=True):
    distances = [w2(law.score, t, langevin_steps, 32) for t in HORIZONS]
    ax.plot(HORIZONS, distances, marker + "-", label=f"{langevin_steps} Langevin steps")
    told = ", ".join(f"{distances[k]:.2f} at T1 = {HORIZONS[k]:.2f}" for k in (len(HORIZONS) // 2, -1))
    print(f"{langevin_steps:2} Langevin steps: W2 {told}")
print(f"two sets of exact samples: W2 {floor:.2f}")
ax.axhline(floor, color="k", ls=":", lw=1, label="exact samples")
ax.set_xscale("log")
ax.set_xticks([0.3, 1, 3], ["0.3", "1", "3"])
ax.xaxis.minorticks_off()
ax.set(ylim=(0, None), xlabel="horizon T1", ylabel="W2 to the data")
ax.legend()
plt.show()

# %% [markdown]
# ## When it does not: the same work elsewhere
#
# A Langevin step costs an evaluation of the score, just as a step of the reversal does. So now every run has 16
# evaluations *in all*, and Langevin gets 0, 8 or 12 of them. The starts are the Gaussian of the data's own mean and
# variance (`moments`), which costs nothing. Two scores are compared: the exact one, and one that is wrong beyond t = 1,
# like the score of a network that was never trained there. In each picture, look for the lowest point of each line.


# %%
def wrong(score, x, t):
    """The score, off by 1 at times beyond 1."""
    return score(x, t) + jnp.where(t > 1, 1.0, 0.0).astype(x.dtype)


mean = np.array([0.3 * -2 + 0.7 * 2])
moments = mean, law.second_moment - mean**2
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), sharey=True, layout="constrained")
for ax, (name, score) in zip(
    axes, (("exact", law.score), ("wrong beyond t = 1", Partial(wrong, law.score))), strict=True
):
    for langevin_steps, marker in zip((0, 8, 12), "os^", strict=True):
        distances = [w2(score, t, langevin_steps, 16 - langevin_steps, moments=moments) for t in HORIZONS]
        ax.plot(HORIZONS, distances, marker + "-", label=f"{langevin_steps} of 16 for Langevin")
        told = f"W2 {min(distances):.2f} at best, at T1 = {HORIZONS[np.argmin(distances)]:.2f}"
        print(f"score {name}, {langevin_steps:2} of 16 evaluations for Langevin: {told}")
    ax.axhline(floor, color="k", ls=":", lw=1)
    ax.set_xscale("log")
    ax.set_xticks([0.3, 1, 3], ["0.3", "1", "3"])
    ax.xaxis.minorticks_off()
    ax.set(ylim=(0, 1.2), xlabel="horizon T1", title=f"score: {name}")
axes[0].set_ylabel("W2 to the data")
axes[0].legend()
plt.show()

# %% [markdown]
# With the exact score, 16 steps of the reversal from a long horizon come close to the floor, and no split with Langevin
# does much better. With the wrong score a long horizon gives bad samples; at a short T1, Langevin is the better use of
# the same work. The study `benchmarks/corrector.py` asks this for three laws, three scores and four budgets, mostly
# without sampling. Its result: Langevin never pays with the exact score, and pays where the score is bad at large
# times.

# %% [markdown]
# ## What can be proved
#
# Langevin forgets a wrong start at a rate that is bounded below by a *log-Sobolev constant* of the law at T1. For data
# within a radius R of the origin the constant is a formula, `bounds.pedrotti2023.lsi_constant`. It is positive from
# some T1 on: earlier, the law may have separate modes, and Langevin may take very long from one to another. The larger
# the data, the longer the horizon that is needed.

# %%
times = np.linspace(0.05, 3.5, 300)
figure, ax = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
for k, radius in enumerate((0.5, 1.0, 2.0)):
    ax.plot(times, bounds.pedrotti2023.lsi_constant(times, radius), color=f"C{k}", label=f"data within R = {radius:g}")
    enough = bounds.pedrotti2023.sufficient_horizon(0.5, radius)
    print(f"R = {radius:g}: the constant is 1/2 or more from T1 = {enough:.2f} on")
ax.axhline(0, color="k", lw=0.8)
ax.set(ylim=(-1.5, 1.6), xlabel="horizon T1", ylabel="log-Sobolev constant")
ax.legend()
plt.show()

# %% [markdown]
# `bounds.pedrotti2023.w2` follows the error from T1 to the samples and adds up an upper bound on W2. The first bound is
# for data near the origin, R = 0.3, in one dimension, where it is informative (samples that are all 0 would have W2
# 0.3). The second is for R = 1, which two points at ±1 have. There the reverse ODE can stretch distances by a huge
# factor (log G is its logarithm), and the bound is *vacuous*: it is larger than the W2 of samples that are all 0. The
# certificate says so.

# %%
print(bounds.pedrotti2023.w2(1.5, 4.0, dim=1, radius=0.3, early_stop=0.01), end="\n\n")
print(bounds.pedrotti2023.w2(1.5, 4.0, dim=1, radius=1.0, early_stop=0.01))

# %% [markdown]
# ## A learned score can go astray far out
#
# Langevin visits places where a network has seen no data, and a wrong score there can do much harm. If the data lie
# within a radius R, the true score lies in a known ball at every x and t; `scores.truncated` projects a score that
# leaves the ball back onto it. For such data this never makes the score worse. Here a score is pushed outwards where
# |x| > 2.5, and the data are points at ±1.


# %%
def pushed(score, x, t):
    """The score, pushed outwards beyond 2.5."""
    return score(x, t) + jnp.where(abs(x) > 2.5, 5 * x, 0)


points = targets.point_masses([[-1.0], [1.0]], [0.3, 0.7])
astray = Partial(pushed, points.score)
for name, score in (("exact", points.score), ("pushed", astray), ("pushed, truncated", scores.truncated(astray, 1.0))):
    x = jaxdiff.predict_correct(score, start, key, horizon=1.0, langevin_time=4.0)
    print(f"{name:18} fraction of x beyond 1.5: {np.mean(~(np.abs(x) < 1.5)):.3f}")

# %% [markdown]
# ## What to remember
#
# - With a score that is good at all times: a long horizon, no Langevin.
# - With a score that is bad at large times, or a T1 that is given: Langevin at T1.
# - The proofs need data within a ball, and are informative only where the ball is small; certificates say when a bound
#   is vacuous.
