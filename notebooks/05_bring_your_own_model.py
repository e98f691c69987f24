# %% [markdown]
# # 5. Bring your own model
#
# A model trained elsewhere has its own clock and its own output: some predict the noise, some the clean data, some a
# velocity. This notebook turns each into a score on the clock of this library, in one line, and then samples and plans
# with it. Any function of (x, time) will do: plain JAX, Flax, Equinox, and, slowly, PyTorch.
#
# Words: the clock here is *OU time* t, X_t = e^-t X_0 + sqrt(1 - e^-2t) Z, data at 0 and noise from about 3 on. The
# *score* is the gradient of the log density of X_t. A *process* is another way of noising, alpha(t) X_0 + sigma(t) Z,
# in its own time. Two processes with the same *signal-to-noise ratio* alpha²/sigma² differ by a factor only, and this
# is how one clock is translated into another.

# %%
import os
import timeit
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from jax.tree_util import Partial

import jaxdiff
from jaxdiff import grids, information, kernels, noise, processes, targets

SMALL = bool(os.environ.get("JAXDIFF_SMALL"))  # a short training, for a quick run of the whole file
COUNT, STEPS = (2_000, 100) if SMALL else (10_000, 3_000)
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"])
plt.rcParams |= {"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}

# %% [markdown]
# ## Clocks
#
# Each line is a process of `jaxdiff.processes`: its own time across, and the OU time with the same signal-to-noise
# ratio up. `ou_ends` gives the first and the last OU time at which a model of the process can be evaluated. Outside,
# the model was never trained, and its score is nan, so that a grid that goes too far is noticed.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
unit = np.linspace(0.001, 0.999, 400)
for process in (processes.vp_linear(), processes.vp_cosine(), processes.flow):
    axes[0].plot(unit, processes.to_ou(process, unit), label=process.name)
noise_levels = np.geomspace(0.002, 80, 400)
axes[1].plot(noise_levels, processes.to_ou(processes.edm, noise_levels), color="C3", label="edm")
axes[0].set(yscale="log", ylabel="OU time", xlabel="own time")
axes[1].set(xscale="log", xlabel="own time: the noise level")
for ax in axes:
    ax.legend()
plt.show()
for process in (processes.vp_linear(), processes.flow, processes.ddpm()):
    print(f"{process.name:10} from OU time {processes.ou_ends(process)[0]:.3g} to {processes.ou_ends(process)[1]:.3g}")

# %% [markdown]
# ## Three models of the same data
#
# The data are normal with variance 4, so the perfect model of each kind is a formula. They stand for three networks.
# One predicts the noise on the VP clock, one predicts the clean data on EDM's clock, and one predicts the velocity of
# flow matching. All three must give the same score; the printed differences are rounding of float32.


# %%
def vp_noise(y, t):
    """The noise in y = alpha X_0 + sigma Z, on the VP clock."""
    alpha, sigma = processes.vp_linear().alpha(t), processes.vp_linear().sigma(t)
    return sigma * y / (4 * alpha**2 + sigma**2)


def edm_denoiser(y, t):
    """The clean data in y = X_0 + t Z."""
    return 4 * y / (4 + t**2)


def flow_velocity(y, t):
    """Z - X_0 for y = (1 - t) X_0 + t Z."""
    return (t - 4 * (1 - t)) * y / (4 * (1 - t) ** 2 + t**2)


models = {
    "vp": processes.score_from_model(vp_noise, processes.vp_linear(), "noise"),
    "edm": processes.score_from_model(edm_denoiser, processes.edm, "denoiser"),
    "flow": processes.score_from_model(flow_velocity, processes.flow, "flow"),
}
x = jnp.linspace(-3, 3, 7)[:, None]
for name, score in models.items():
    exact = [-x / (4 * np.exp(-2 * t) + 1 - np.exp(-2 * t)) for t in (0.1, 1.0, 3.0)]
    off = [np.max(np.abs(score(x, t) - truth)) for t, truth in zip((0.1, 1.0, 3.0), exact, strict=True)]
    print(f"{name:5} differs from the exact score by {max(off):.1g} at most")

# %% [markdown]
# From here on a model is a score like any other. `unipc` follows the probability-flow ODE, a deterministic map from
# noise to data, here with 20 evaluations. It ends at the *early stop*, the last time of the grid, where data are still
# scaled by alpha = e^-t; dividing by alpha gives the units of the data. The variance should be 4 plus that of the
# little noise that is left.

# %%
grid = grids.log_snr(4.0, 0.01, 20)
start = noise.initial(jax.random.key(0), np.arange(COUNT), 1)
stretch = (4 + 1 / processes.ou.snr(grid)) * np.exp(-2 * grid)  # the variance of X_t
expected = np.var(start) * stretch[-1] / stretch[0] * np.exp(2 * grid[-1])  # of these very starting points
for name, score in models.items():
    end = jaxdiff.sample(kernels.unipc(score), start, grid, jax.random.key(1)) / processes.ou.alpha(grid[-1])
    print(f"{name:5} variance {np.var(end):.4f}, of a perfect map {expected:.4f}")

# %% [markdown]
# ## A network trained elsewhere
#
# Now a real network: a small Flax network that learns the velocity of flow matching for three clusters in the plane.
# This cell stands for your own code: a plain loss and a plain Optax loop, without this library.

# %%
law = targets.mixture([0.5, 0.3, 0.2], [[-1.5, 0.0], [1.5, 1.0], [1.0, -1.5]], [[0.1, 0.1], [0.2, 0.05], [0.5, 0.02]])
data, held_out = law.sample(jax.random.key(2), 20_000), law.sample(jax.random.key(3), 2_000)


class Velocity(nnx.Module):
    """u(y, t) for y (..., 2) and a time t between 0 and 1."""

    def __init__(self, rngs):
        """Three layers of 128."""
        self.layers = nnx.List([nnx.Linear(n, m, rngs=rngs) for n, m in ((6, 128), (128, 128), (128, 128), (128, 2))])

    def __call__(self, y, t):
        """The velocity."""
        t = jnp.broadcast_to(t, y.shape[:-1])[..., None]
        h = jnp.concatenate([y, t, t**2, jnp.cos(3 * t), jnp.sin(3 * t)], axis=-1)
        for layer in self.layers[:-1]:
            h = nnx.silu(layer(h))
        return self.layers[-1](h)


graph, weights = nnx.split(Velocity(nnx.Rngs(0)))
optimiser = optax.adam(optax.cosine_decay_schedule(2e-3, STEPS))


def loss(weights, key):
    """Flow matching: the mean square of u(y, t) - (Z - X_0)."""
    key_rows, key_time, key_noise = jax.random.split(key, 3)
    x0 = data[jax.random.randint(key_rows, (512,), 0, len(data))]
    t, z = jax.random.uniform(key_time, (512,)), jax.random.normal(key_noise, (512, 2))
    y = (1 - t[:, None]) * x0 + t[:, None] * z
    return jnp.mean((nnx.merge(graph, weights)(y, t) - (z - x0)) ** 2)


def update(state, key):
    """A step of Adam."""
    weights, moments = state
    value, gradient = jax.value_and_grad(loss)(weights, key)
    step, moments = optimiser.update(gradient, moments)
    return (optax.apply_updates(weights, step), moments), value


keys = jax.random.split(jax.random.key(4), STEPS)
(weights, _), losses = jax.jit(lambda state: jax.lax.scan(update, state, keys))((weights, optimiser.init(weights)))
first, last = losses[: STEPS // 10].mean(), losses[-STEPS // 10 :].mean()
print(f"loss {first:.3f} in the first tenth of the steps, {last:.3f} in the last")

# %% [markdown]
# One line makes a score of the network: the function of (weights, y, t), with the weights bound by `Partial`, so that
# new weights recompile nothing. Another line makes a denoiser of the score. Its loss on rows that it has not seen is
# all that `plan` needs. Flow matching trains at all times between 0 and 1, so every horizon is possible; this one is 4.

# %%
velocity = Partial(lambda weights, y, t: nnx.merge(graph, weights)(y, t), weights)
score = processes.score_from_model(velocity, processes.flow, "flow")
denoiser = processes.denoiser_from_score(score)
basis = information.principal_axes(data)
curve = information.loss_curve(denoiser, held_out, jax.random.key(5), horizon=4.0, early_stop=0.001, basis=basis)
plan = jaxdiff.plan(evals=20, curve=curve)
print(plan.certificate)

# %% [markdown]
# The certificate says what 20 steps cost over infinitely many steps of your network. The network's own error is
# unknown, as it always is for a trained model. The picture shows the data, samples by the plan (with noise on the way),
# and samples by `unipc` (without noise). Are the errors in the third panel due to the network, or to its 20 steps? The
# printed line says how far 200 steps would move those particles.

# %%
start = noise.initial(jax.random.key(6), np.arange(COUNT), 2)
by_ode = kernels.unipc(score, 3)
few, many = (grids.log_snr(4.0, 0.001, n) for n in (20, 200))
sampled = {
    "data": data,
    f"{plan.kernel}, {plan.evals} steps": jaxdiff.sample(plan.sampler(score), start, key=jax.random.key(7)),
    "unipc, 20 steps": jaxdiff.sample(by_ode, start, few, jax.random.key(7)),
}
far = jaxdiff.sample(by_ode, start, many, jax.random.key(7))
moved = np.linalg.norm(sampled["unipc, 20 steps"] - far, axis=-1)
print(
    f"half of the particles move by less than {np.median(moved):.2g}, 1 % by more than {np.quantile(moved, 0.99):.2g}"
)
figure, axes = plt.subplots(1, 3, figsize=(10, 3.5), sharex=True, sharey=True, layout="constrained")
for ax, (name, rows), colour in zip(axes, sampled.items(), ("C0", "C2", "C3"), strict=True):
    ax.plot(*rows[:2000].T, ".", ms=2, alpha=0.5, color=colour)
    ax.set(title=name, xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
plt.show()

# %% [markdown]
# ## Equinox
#
# An Equinox module is a pytree that can be called, so it is passed as it is. (The cell does nothing if Equinox is not
# installed.)

# %%
try:
    import equinox as eqx
except ImportError:
    print("Equinox is not installed")
else:

    class Denoiser(eqx.Module):
        """The clean data in y = X_0 + t Z, for data of a variance that could be trained."""

        variance: jax.Array

        def __call__(self, y, t):
            """The denoiser."""
            return self.variance * y / (self.variance + t**2)

    module = processes.score_from_model(Denoiser(jnp.array(4.0)), processes.edm, "denoiser")
    off = np.max(np.abs(module(start, 1.0) - models["edm"](start, 1.0)))
    print(f"differs from the model above by {off:.1g} at most")

# %% [markdown]
# ## PyTorch and everything else
#
# A model that JAX cannot trace is called back on the host with `jax.pure_callback`. This is slow: each step leaves the
# compiled program, all particles are copied to the host and back, and no gradient passes. The times below are for a CPU
# and a model that costs almost nothing; from a GPU the copies take longer. Use a callback for a check, and port the
# weights to JAX for more work. Here plain NumPy stands for the foreign model.


# %%
def foreign(y, t):
    """A model that JAX does not see: the noise in y = X_0 + t Z."""
    return np.asarray(y) * np.asarray(t) / (4 + np.asarray(t) ** 2)


def called_back(y, t):
    """The same for JAX."""
    return jax.pure_callback(foreign, jax.ShapeDtypeStruct(y.shape, y.dtype), y, t)


native = processes.score_from_model(lambda y, t: y * t / (4 + t**2), processes.edm, "noise")
outside = processes.score_from_model(called_back, processes.edm, "noise")
ends = {}
for name, score in (("JAX", native), ("called back", outside)):
    run = partial(jaxdiff.sample, kernels.unipc(score), start, grid, jax.random.key(1))
    ends[name] = run().block_until_ready()  # compiles
    seconds = min(timeit.repeat(lambda run=run: run().block_until_ready(), number=1, repeat=5))
    print(f"{name:12} {1e3 * seconds:6.1f} ms for {len(start)} particles, 20 evaluations")
print("largest difference:", np.max(np.abs(ends["JAX"] - ends["called back"])))

# %% [markdown]
# For PyTorch the function called back is
#
# ```python
# def foreign(y, t):
#     with torch.no_grad():
#         y, t = torch.tensor(np.asarray(y)), torch.full((len(y),), float(t))
#         return net(y, t).numpy()
# ```
#
# and for a DDPM of `diffusers`, which takes whole times 0 to 999 and pictures (n, channels, height, width), it is
# `unet(y.reshape(-1, 3, 32, 32), t).sample.reshape(len(y), -1)`, with `processes.ddpm(scheduler.alphas_cumprod)` and
# "noise". Run it on a grid of whole times, `processes.to_ou(process, np.array([999, 949, ..., 0]))`. (These lines were
# not run for this page: neither library is needed for anything else here.)
#
# ## What to remember
#
# - `processes.score_from_model(model, process, predicts)` needs the process and the kind of prediction, nothing else.
# - With held-out data, `loss_curve` and `plan` work for any model, whoever trained it.
