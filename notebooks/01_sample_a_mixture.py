# %% [markdown]
# # 1. Sample a mixture
#
# A diffusion model makes samples out of noise. It needs one function, the *score*: the gradient of the log density of
# the data with noise added. Here the data are a mixture of three Gaussians in the plane, whose score is a formula, so
# nothing is trained and every result can be checked against the truth.
#
# You need JAX and a rough idea of diffusion models. You leave with samples, a plan for how many steps they take, and a
# number that says how far they can be from the truth.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxdiff
from jaxdiff import grids, information, kernels, noise, processes, targets

SMALL = bool(os.environ.get("JAXDIFF_SMALL"))  # few particles, for a quick run of the whole file
COUNT = 2_000 if SMALL else 20_000
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"])
plt.rcParams |= {"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}

# %% [markdown]
# A law in `jaxdiff.targets` knows its samples, its density and its score, at every noise level. Ours has three
# components with weights 0.5, 0.3 and 0.2, the last one long and thin.

# %%
WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[-1.5, 0.0], [1.5, 1.0], [1.0, -1.5]])
law = targets.mixture(WEIGHTS, MEANS, [[0.1, 0.1], [0.2, 0.05], [0.5, 0.02]])
data = law.sample(jax.random.key(0), COUNT)
print(law)

# %% [markdown]
# ## From data to noise
#
# Time t says how much noise there is: X_t = e^-t X_0 + sqrt(1 - e^-2t) Z, with X_0 from the data and Z standard normal.
# This is the Ornstein-Uhlenbeck process, and t is called *OU time*: data at 0, and noise from about 3 on. Watch the
# three clusters melt into one standard normal cloud.

# %%
z = jax.random.normal(jax.random.key(1), data.shape)
figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), sharex=True, sharey=True, layout="constrained")
for ax, t in zip(axes, (0.0, 0.2, 0.7, 3.0), strict=True):
    ax.plot(*processes.forward(data, t, z)[:1000].T, ".", ms=2, alpha=0.5)
    ax.set(title=f"t = {t:g}", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
plt.show()

# %% [markdown]
# The score at time t points to where the noised data are denser. Sampling follows these arrows. The shading is the
# density, from the same law. With little noise (left) the arrows point to three clusters; with more noise (right) they
# point to one blob.

# %%
side = np.linspace(-3.5, 3.5, 141)
everywhere = np.stack(np.meshgrid(side, side), -1).astype(np.float32)
coarse = everywhere[5::10, 5::10]
figure, axes = plt.subplots(1, 2, figsize=(8, 4), sharex=True, sharey=True, layout="constrained")
for ax, t in zip(axes, (0.1, 0.7), strict=True):
    ax.contourf(side, side, np.exp(law.log_density(everywhere, t)), levels=12, cmap="Greys")
    arrows = law.score(coarse, t)
    length = np.linalg.norm(arrows, axis=-1, keepdims=True)
    arrows = arrows / length * np.log1p(length)  # long arrows shortened, directions kept
    ax.quiver(*np.moveaxis(coarse, -1, 0), *np.moveaxis(arrows, -1, 0), color="C1", width=0.004)
    ax.set(title=f"score and density, t = {t:g}", aspect="equal")
plt.show()

# %% [markdown]
# ## From noise to data
#
# Sampling runs time backwards. Four things are needed:
#
# - a *horizon*, the time where it starts, from standard normal noise (here 4);
# - an *early stop*, a small time above 0 where it ends (here 0.01), since the score can blow up at 0;
# - a *grid*, the times in between. `grids.log_snr` spaces them evenly in the logarithm of the signal-to-noise ratio;
# - a *kernel*, the rule for one step. `ancestral` is DDPM's: it freezes the guess of the clean data during the step.
#
# `trajectory` keeps what the particles look like on the way.

# %%
grid = grids.log_snr(4.0, 0.01, 40)
kernel = kernels.ancestral(law.score)
key = jax.random.key(2)
start = noise.initial(key, np.arange(COUNT), 2)  # standard normal; particle i is the same in any batch
kept = grid[[0, 25, 31, 40]]
path = jaxdiff.trajectory(kernel, start, grid, key, kept)
figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), sharex=True, sharey=True, layout="constrained")
for ax, t, x in zip(axes, kept, path, strict=True):
    ax.plot(*x[:1000].T, ".", ms=2, alpha=0.5, color="C2")
    ax.set(title=f"t = {t:.2g}", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
plt.show()

# %% [markdown]
# Are those the right samples? The law tells us the density of each coordinate, and how many samples belong to each
# cluster. `sample` is what you will mostly call: it keeps only the end. Compare the bars with the line, and the
# fractions of the samples with the weights. They are close. In the full run the peaks are too high, and the fractions
# are wrong by more than the two standard errors that chance allows. Ancestral sampling adds a little too little noise
# in each of its 40 steps.

# %%
x = jaxdiff.sample(kernel, start, grid, key)
cluster = np.argmin(np.linalg.norm(np.asarray(x)[:, None] - MEANS, axis=-1), axis=-1)  # the nearest mean
for k, weight in enumerate(WEIGHTS):
    error = np.sqrt(weight * (1 - weight) / COUNT)
    print(f"cluster {k}: weight {weight}, fraction of the samples {np.mean(cluster == k):.4f} ± {error:.4f}")

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for k, ax in enumerate(axes):
    density = targets.mixture(WEIGHTS, MEANS[:, k : k + 1], [[[0.1], [0.2], [0.5]], [[0.1], [0.05], [0.02]]][k])
    ax.hist(np.asarray(x[:, k]), bins=80, density=True, color="C4", label="samples")
    ax.plot(side, np.exp(density.log_density(side[:, None].astype(np.float32), grid[-1])), color="k", lw=1, label="law")
    ax.set(xlabel=f"coordinate {k}", ylabel="density", xlim=(-3.5, 3.5))
axes[0].legend()
plt.show()

# %% [markdown]
# ## How many steps, and how good?
#
# Kernel, grid and 40 steps were a guess. `plan` replaces it: you say how far from the truth you accept to be, and it
# finds the horizon, the grid, the kernel and the number of steps. Distance is the Kullback-Leibler divergence, KL, from
# the law at the early stop to the samples', in *nats*. By Pinsker's inequality no event's probability is off by more
# than sqrt(KL/2): at 0.02 nats, by a tenth at most. The plan uses the KL of whole paths, which is never less.
#
# What is printed is a *certificate*: every cause of error with its size, and whether that is exact, measured or a
# bound. *Initialisation* is the cost of the start, because noised data at a finite horizon are not quite normal.
# *Discretisation* is the cost of the steps. The score is exact here. The certificate also states the cost of stopping
# at 0.01, where some noise is left: in W2, the distance by which this noise moves samples, and in total variation (TV),
# the largest error of a probability.

# %%
plan = jaxdiff.plan(target_kl=0.02, early_stop=0.01, target=law)
print(plan.evals, "score evaluations a sample, kernel", plan.kernel)
print(plan.certificate)

# %% [markdown]
# The plan chose the kernel `moment_matched`: `ancestral` with the right amount of noise in each step. It takes this
# amount from `law.mmse`, which says how well the data can be guessed at each noise level. `information.path_kl`
# computes the KL of whole paths for any kernel and grid. Below are our guess, and three kernels on two grids with as
# many steps as the plan has. (In the line `moment_matched` the noise is the same in all directions; the plan sets it
# for each direction.)

# %%
print("the guess:", information.path_kl("ancestral", law.mmse, grid), "nats")
textbook = grids.exponential_then_uniform(plan.horizon, 0.01, plan.evals)  # Benton's grid, from the theory papers
for name in ("exponential_euler", "ancestral", "moment_matched"):
    costs = [information.path_kl(name, law.mmse, one) for one in (textbook, plan.grid)]
    print(f"{name:18} {costs[0]:8.4f} nats on Benton's grid, {costs[1]:8.4f} on the planned one")

# %% [markdown]
# `plan.sampler(score)` is the planned kernel on the planned grid, and `sample` runs it. Compare the fractions with the
# weights again. They should now agree, up to chance.

# %%
planned = plan.sampler(law.score)
x = jaxdiff.sample(planned, start, key=key)
cluster = np.argmin(np.linalg.norm(np.asarray(x)[:, None] - MEANS, axis=-1), axis=-1)
for k, weight in enumerate(WEIGHTS):
    error = np.sqrt(weight * (1 - weight) / COUNT)
    print(f"cluster {k}: weight {weight}, fraction of the samples {np.mean(cluster == k):.4f} ± {error:.4f}")

figure, axes = plt.subplots(1, 2, figsize=(7, 3.5), sharex=True, sharey=True, layout="constrained")
for ax, rows, title, colour in zip(
    axes, (data, x), ("data", f"samples, {plan.evals} steps"), ("C0", "C2"), strict=True
):
    ax.plot(*rows[:1500].T, ".", ms=2, alpha=0.5, color=colour)
    ax.set(title=title, xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
plt.show()

# %% [markdown]
# ## Every particle has its own noise
#
# The noise of particle i depends on the key and on i, not on the batch it is in. So a big run can be cut into pieces,
# repeated in part, or spread over devices, and gives the same particles. Here ten of them are made again, alone. They
# may differ by rounding only, because this score sums over coordinates.

# %%
again = jaxdiff.sample(planned, start[500:510], key=key, first_particle=500)
print("largest difference:", float(np.max(np.abs(again - x[500:510]))))

# %% [markdown]
# ## Without noise
#
# Kernels of the *probability-flow ODE* add no noise on the way: a deterministic map from the start to the data. They
# need fewer steps for the same accuracy of this map, but have no certificate, because there is no random path to
# compare. `unipc` is the recommended one. Below, the same starting points run with more and more evaluations, and the
# printed numbers say how far the end points still move.

# %%
fine = jaxdiff.sample(kernels.unipc(law.score, 3), start, grids.log_snr(4.0, 0.01, 400), key)
for evals in (5, 10, 20, 40):
    ends = jaxdiff.sample(kernels.unipc(law.score, 3), start, grids.log_snr(4.0, 0.01, evals), key)
    off = np.median(np.linalg.norm(ends - fine, axis=-1))
    print(f"{evals:3} evaluations: half of the particles end within {off:.2g} of where 400 take them")

# %% [markdown]
# ## Where to go
#
# - **02** asks how many steps are needed, and how that grows with the dimension.
# - **03** does all of this with a network trained on pictures of digits.
# - **04** is about Langevin steps, **05** about models from elsewhere, **06** about many devices.
