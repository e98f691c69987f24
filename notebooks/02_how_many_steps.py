# %% [markdown]
# # 2. How many steps?
#
# The error of a sampler with noise can be computed before it is run, if one curve of the data is known: how well the
# clean data can be guessed at each noise level. This notebook shows that curve, the cost of steps computed from it,
# where the steps should lie, and how their number grows with the dimension. Nothing here draws a sample.
#
# Words: *OU time* t is the noise level, X_t = e^-t X_0 + sqrt(1 - e^-2t) Z. Sampling runs from the *horizon*, a large
# time, down to the *early stop*, a small one, along a *grid* of times. A *kernel* is the rule for one step.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np

import jaxdiff
from jaxdiff import bounds, grids, information, processes, targets

SMALL = bool(os.environ.get("JAXDIFF_SMALL"))  # fewer dimensions and steps, for a quick run of the whole file
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"])
plt.rcParams |= {"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
HORIZON, EARLY_STOP = 5.0, 0.01
ENDS = (HORIZON, EARLY_STOP)

# %% [markdown]
# ## One curve
#
# The *signal-to-noise ratio* at time t is snr = e^-2t/(1 - e^-2t): small where there is mostly noise. The *mmse* is the
# mean squared error of the best guess of the clean data from the noisy. With no signal the best guess is the mean, and
# the mmse is the variance; with much signal it falls to 0. Three laws on the line, all of variance about 1: a normal
# one, two bumps at ±1, and two pairs of points. As the signal grows, one can first distinguish the two pairs, and later
# the two points of each pair.

# %%
laws = {
    "normal": targets.gaussian([0.0], [1.0]),
    "two bumps": targets.mixture([0.5, 0.5], [[-1.0], [1.0]], [[0.05], [0.05]]),
    "two pairs": targets.point_masses([[-1.25], [-0.75], [0.75], [1.25]]),
}
snr = np.geomspace(*processes.ou.snr(np.array(ENDS)), 300)
figure, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
for (name, law), style in zip(laws.items(), ("-", "--", "-."), strict=True):
    ax.plot(snr, law.mmse(snr), style, label=name)
ax.set(xscale="log", yscale="log", xlim=(0.01, None), ylabel="mmse")
ax.set_xlabel("signal-to-noise ratio (data on the right)")
ax.legend()
plt.show()

# %% [markdown]
# A step freezes the score, or the guess of the clean data, at its start. Its error is the change of this quantity
# during the step, so steps belong where the curve changes. The sum over the steps is the *path KL*: the
# Kullback-Leibler divergence between the random paths of the ideal process and those of the sampler. The numbers below
# are the exact path KL, and the path KL is at least the KL of the samples. KL is given in *nats*; the probability of
# any event is wrong by sqrt(KL/2) at most.
#
# Below: the path KL of the two bumps from t = 5 to 0.01, for four kernels. `exponential_euler` freezes the score,
# `ancestral` (DDPM) freezes the guess of the clean data, `moment_matched` does the same with the right amount of noise,
# and `covariance_matched` with the right amount of noise in each direction, for more work per step. Benton's grid is
# the one of the theory: uniform down to t = 1, then geometric. The optimal grid is the best grid for the kernel: a
# shortest path over a thousand candidate times.

# %%
bumps = laws["two bumps"].mmse
steps = [4, 8, 16, 32] if SMALL else [4, 8, 16, 32, 64, 128]
benton = {n: grids.exponential_then_uniform(*ENDS, n) for n in steps}
on_benton, on_optimal = {}, {}
for name in ("exponential_euler", "ancestral", "moment_matched", "covariance_matched"):
    cost = information.step_cost(name, bumps)
    optimal = {n: grids.optimal(cost, *ENDS, n) for n in steps}
    on_benton[name] = [information.path_kl(name, bumps, benton[n]) for n in steps]
    on_optimal[name] = [information.path_kl(name, bumps, optimal[n]) for n in steps]
    order = -np.polyfit(np.log(steps[-3:]), np.log(on_optimal[name][-3:]), 1)[0]
    gain = on_benton[name][-1] / on_optimal[name][-1]
    print(f"{name:18} {on_optimal[name][-1]:9.2g} nats at {steps[-1]} steps, {gain:4.1f} times less than on Benton's")
    print(f"{'':18} falls like steps^-{order:.2f} on the optimal grid")

# %%
figure, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
for k, name in enumerate(on_benton):
    ax.plot(steps, on_benton[name], "o:", color=f"C{k}", ms=4)
    ax.plot(steps, on_optimal[name], "s-", color=f"C{k}", ms=4, label=name)
ax.plot([], [], "ko:", label="Benton's grid")
ax.plot([], [], "ks-", label="optimal grid")
ax.set(xscale="log", yscale="log", xlabel="steps", ylabel="path KL, nats")
ax.set_xticks(steps, [str(n) for n in steps])
ax.minorticks_off()
ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## Where the steps lie
#
# Left: the times of 20 steps, chosen for each law, for `moment_matched`; the best times differ from law to law. A
# normal law needs none (this kernel is exact on it), so it is left out. Right: the cost of each step. The grids chosen
# for the law spread the cost more evenly over the steps than Benton's grid.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
textbook = grids.exponential_then_uniform(*ENDS, 20)
left.plot(textbook, "k.-", lw=1, label="Benton's grid")
for k, name in enumerate(("two bumps", "two pairs")):
    cost = information.step_cost("moment_matched", laws[name].mmse)
    grid = grids.optimal(cost, *ENDS, 20)
    left.plot(grid, ".-", color=f"C{k + 1}", label=f"optimal, {name}")
    for times, style, label in ((textbook, ":", "Benton's"), (grid, "-", "optimal")):
        each = cost(times[:-1], times[1:])
        told = f"{name}, {label}: {each.sum():.3g} nats"
        right.stairs(each, processes.ou.snr(times), color=f"C{k + 1}", ls=style, lw=1.5, baseline=None, label=told)
left.set(yscale="log", xlabel="step", ylabel="OU time t", xticks=range(0, 21, 5))
right.set(
    xscale="log",
    yscale="log",
    xlim=(0.01, None),
    ylim=(1e-5, 1),
    xlabel="signal-to-noise ratio",
    ylabel="path KL of a step, nats",
)
left.legend()
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## How the number grows with the dimension
#
# Take d independent coordinates, each the two bumps. Path KL adds up over independent coordinates, so for a given grid
# it is proportional to d. Above it fell like 1/steps, so the steps for a given total grow like d too. This is the
# *d-linear law* (Benton et al. proved it for all data, up to logarithms): no data of dimension d need d² steps. `plan`
# finds the fewest steps for half a nat, and says how many steps exponential Euler on Benton's grid needs for the same
# path KL.

# %%
dims = [4, 16] if SMALL else [4, 8, 16, 32, 64]
planned, euler = [], []
for d in dims:
    plan = jaxdiff.plan(0.5, EARLY_STOP, target=targets.product([laws["two bumps"]] * d), horizon=HORIZON)
    planned.append(plan.evals)
    euler.append(plan.alternatives[-1]["evals"])
    print(f"d = {d:3}: {planned[-1]:5} steps planned, {euler[-1]:6} of exponential Euler on Benton's grid")
print("exponents of d:", *(f"{np.polyfit(np.log(dims), np.log(n), 1)[0]:.2f}" for n in (planned, euler)))

# %% [markdown]
# The d-linear law is about the worst case. Data often vary in a few directions only. The path KL of a sampler that
# freezes the guess of the clean data then depends on these directions alone, while that of exponential Euler grows with
# every coordinate. Below, a normal law in d dimensions that varies in four of them, with 50 steps.

# %%
thin_dims, thin = [4, 16, 64, 256, 1024], {}
for name in ("exponential_euler", "ancestral"):
    flat = [targets.gaussian(np.zeros(d), np.arange(d) < 4) for d in thin_dims]
    thin[name] = [information.path_kl(name, law.mmse, grids.exponential_then_uniform(*ENDS, 50)) for law in flat]
    print(f"{name:18}", *(f"{kl:9.3f}" for kl in thin[name]), "nats")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
left.plot(dims, euler, "o-", label="exponential Euler, Benton's grid")
left.plot(dims, planned, "s-", label="planned: moment matched")
left.plot(dims, planned[0] * np.array(dims) / dims[0], "k--", lw=1, label="proportional to d")
left.set(xlabel="d, all of them bumps", ylabel="steps for 0.5 nats")
for k, (name, costs) in enumerate(thin.items()):
    right.plot(thin_dims, costs, "os"[k] + "-", color=f"C{2 * k}", label=name)
right.set(xlabel="d, four of which vary", ylabel="path KL of 50 steps, nats")
for ax in (left, right):
    ax.set(xscale="log", yscale="log")
    ax.legend(fontsize=9)
left.set_xticks(dims, [str(d) for d in dims])
left.xaxis.minorticks_off()
plt.show()

# %% [markdown]
# ## A plan without any data
#
# With no law and no data, the dimension and the mean square E|X|² are enough for a plan that holds for *all* data that
# have them. It must hold in the worst case, so it takes more steps. Three guarantees of half a nat in d dimensions are
# printed: the plan, and for exponential Euler on Benton's grid the best bound of this library and the theorem of Benton
# et al. with its constants worked out (`bounds`). The last line is the order of the steps that the paper states,
# without a constant.

# %%
for d in (4, 64):
    plan = jaxdiff.plan(0.5, EARLY_STOP, dim=d, second_moment=d)
    print(f"d = {d}: {plan.kernel}, {plan.evals} steps from t = {plan.horizon:.2f}")
    for row in plan.alternatives[1:]:
        print(f"        or {row['kernel']} on Benton's grid, {row['evals']} steps, by bounds.{row['bound']}")
    order = bounds.benton2024.corollary(0.5, d, EARLY_STOP)
    print(f"        the paper's d (T + log 1/delta)²/eps² is {order.n_steps:.0f}")

# %% [markdown]
# The certificate of a plan lists its terms: the cost of the start (*initialisation*: the horizon is finite, so noised
# data are not quite noise there), the cost of the steps (*discretisation*), and the cost of a wrong score. It also
# lists the cost of stopping early. Each term says how it is known; here all are bounds, or assumed.

# %%
print(plan.certificate)

# %% [markdown]
# ## What to remember
#
# - Path KL is arithmetic on one curve; you need not run a sampler to know it.
# - `moment_matched` is the default kernel, on the grid that `plan` chooses.
# - Steps grow like the dimension at a fixed path KL, or more slowly where the data vary in few directions.
# - For a trained network the curve is measured on data it has not seen: notebook **03**.
