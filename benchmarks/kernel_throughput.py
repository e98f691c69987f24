"""How long does every kernel take for an evaluation, over DDIM and over its bare evaluations?

Three scores in several dimensions, float32, 48 evaluations from T = 5 to 0.001 (one more for kernels whose steps need
it). `over_ddim` is the time for an evaluation over that of DDIM. `over_score` is the whole time over that of a bare
loop which evaluates the score as often, `over_parts` over the sum of that loop and of as many Gaussian increments as
the kernel draws. All methods of a case take turns in one run. A last part times planning, fits and likelihoods.

STAGES and MULTISTEP are the requirements: at most so many times DDIM, for kernels with several evaluations in a step
and for those that keep earlier outputs. Kernels with noise are held to `over_parts`, as DDIM draws none. `later_s` is
the first call, compilation included, less that of the same steps in a plain jitted scan; at most LATER seconds.

Calls that are no single kernel are timed once they are compiled: Langevin with a reversal, likelihoods, plans and a
fitted grid. Where the number of evaluations is known, `over_score` is the time over that of as many in a bare loop.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxdiff
from benchmarks.harness import drawing, studies
from benchmarks.harness.timing import interleaved
from benchmarks.laws.throughput import LAWS, mixture
from benchmarks.samplers.throughput import bare_loop, particles
from jaxdiff import Sampler, grids, kernels, plots, prediction_correction

NAME = "kernel_throughput"
QUESTION = "How long does every kernel take for an evaluation, over DDIM and over its bare evaluations?"
EVALS, HORIZON, EARLY_STOP = 48, 5.0, 1e-3
DIMENSIONS, COORDINATES = {"quick": (64,), "full": (2, 64, 1024, 16384)}, {"quick": 2**17, "full": 2**19}
STAGES, MULTISTEP, LATER = 1.3, 1.5, 0.3
DENSE, LANCZOS = 16, 4  # of covariance matching: the d in which it is dense, and its products in more dimensions
TICKS = (0.5, 1, 2, 5, 10, 20)
CALLED, PILOTS, POINTS = 64, 512, 64  # d of the calls; particles for a fit; those of likelihoods and Jacobians
PLAIN = (
    "ancestral", "deis", "dpm_solver", "euler", "euler_maruyama", "exponential_adams", "exponential_euler", "heun",
    "ode_then_noise", "randomized_midpoint", "rk4", "sa_solver", "seeds", "stochastic_runge_kutta", "unipc",
)  # fmt: skip


def made(law, d):
    """Every kernel of a law by name, without covariance matching, which takes products with a Jacobian."""
    score = law.score
    found = {"ddim": kernels.ddim(score)} | {name: getattr(kernels, name)(score) for name in PLAIN}
    found["eta_family"] = kernels.eta_family(score, 0.5)
    found["moment_matched"] = kernels.moment_matched(score, lambda snr: d / (1 + snr), dim=d)
    found["langevin"] = kernels.langevin(score, 0.5)
    corrector = kernels.langevin(score, 0.5)
    found["predictor_corrector"] = kernels.predictor_corrector(kernels.ddim(score), corrector, 1, step_size=0.01)
    return found


def grid_of(kernel):
    """A grid on which the kernel takes EVALS evaluations, or the next smaller number."""
    n_steps = EVALS // kernel.evals_per_step
    return np.linspace(0.1, 0, n_steps + 1) if kernel.own_clock else grids.log_snr(HORIZON, EARLY_STOP, n_steps)


def kind(kernel):
    """What the requirement on a kernel is about."""
    leaves = len(jax.tree.leaves(jax.eval_shape(kernel.init, jax.ShapeDtypeStruct((1, 1), jnp.float32))))
    return "multistep" if leaves > 1 else "stages" if kernel.evals_per_step > 1 else "one evaluation"


def case_rows(law, d, n, repeats):
    """A row for every kernel of a law in d dimensions."""
    key_start, key = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_start, (n, d), jnp.float32)
    found = made(law, d)
    run = lambda kernel: functools.partial(jaxdiff.sample, Sampler(kernel, grid_of(kernel)), x, key=key)
    table = kernels.ddim(law.score).coefficients(grid_of(found["ddim"]))
    table = jax.tree.map(lambda column: jnp.asarray(column, x.dtype), table)
    silent = kernels.exponential_euler(lambda x, t: jnp.zeros_like(x))
    timings = interleaved(
        {
            "score alone": functools.partial(bare_loop, law.score, table, x),
            "noise alone": run(silent),
            **{name: run(kernel) for name, kernel in found.items()},
        },
        repeats,
    )
    score, noise = (timings[name].median / EVALS for name in ("score alone", "noise alone"))
    score = min(score, timings["ddim"].median / EVALS)
    plain = {name: first_of_plain_scan(kernel, x, key) for name, kernel in found.items()}
    return [_row(law, d, n, name, kernel, timings, score, noise, plain[name]) for name, kernel in found.items()]


@functools.partial(jax.jit, static_argnames=("init", "step", "position", "noises"))
def plain_scan(score, table, x, key, *, init, step, position, noises):
    """Steps of a kernel in a scan, with noise of jax.random."""

    def one(state, row_and_key):
        row, key = row_and_key
        z = jax.random.normal(key, (noises,) * (noises > 1) + x.shape, x.dtype) if noises else None
        return step(score, state, row, z), None

    keys = jax.random.split(key, len(jax.tree.leaves(table)[0]))
    return position(jax.lax.scan(one, init(x), (table, keys))[0])


def first_of_plain_scan(kernel, x, key):
    """Seconds of the first call of a plain scan of the kernel's steps."""
    table = jax.tree.map(lambda column: jnp.asarray(column, x.dtype), kernel.coefficients(grid_of(kernel)))
    how = {"init": kernel.init, "step": kernel.step, "position": kernel.position, "noises": kernel.noises_per_step}
    return interleaved({"plain": functools.partial(plain_scan, kernel.score, table, x, key, **how)}, 1)["plain"].first


def _row(law, d, n, name, kernel, timings, score, noise, plain):
    """The row of a kernel.

    score, noise: seconds of one bare evaluation and of one bare increment. plain: of a plain scan's first call.
    """
    n_steps = len(grid_of(kernel)) - 1
    evals, own, ddim = n_steps * kernel.evals_per_step, timings[name].median, timings["ddim"].median / EVALS
    return {
        "part": "kernel",
        "score": law.name,
        "d": d,
        "particles": n,
        "kernel": name,
        "kind": kind(kernel),
        "noises": kernel.noises_per_step * n_steps / evals,
        "median_ms": 1e3 * own,
        "first_s": timings[name].first,
        "later_s": timings[name].first - plain,
        "over_ddim": own / evals / ddim,
        "over_score": own / evals / score,
        "over_parts": own / (evals * score + n_steps * kernel.noises_per_step * noise),
    }


def product_rows(law, d, n, repeats):
    """A row of covariance matching: dense in few dimensions, by Lanczos' method in more."""
    products = None if d <= DENSE else LANCZOS
    kernel = kernels.covariance_matched(law.score, products=products)
    key_start, key = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_start, (n, d), jnp.float32)
    run = lambda kernel: functools.partial(jaxdiff.sample, Sampler(kernel, grid_of(kernel)), x, key=key)
    timings = interleaved({"ddim": run(kernels.ddim(law.score)), "own": run(kernel)}, repeats)
    own, ddim = (timings[name].median for name in ("own", "ddim"))
    name = f"covariance_matched, {'dense' if products is None else f'{products} products'}"
    about = {"part": "call", "score": law.name, "d": d, "particles": n, "kernel": name, "kind": "products"}
    return [about | {"seconds": own, "first_s": timings["own"].first, "over_ddim": own / ddim}]


def call_rows(law, d, n, repeats):
    """A row for every call that is no single kernel."""
    key_start, key = jax.random.split(jax.random.key(0))
    x, target = jax.random.normal(key_start, (n, d), jnp.float32), law.score
    table = jax.tree.map(
        lambda c: jnp.asarray(c, x.dtype), kernels.ddim(target).coefficients(grid_of(kernels.ddim(target)))
    )
    stages = {"horizon": 1.0, "langevin_time": 2.0, "step_size": 0.1, "grid": grids.log_snr(1.0, EARLY_STOP, EVALS)}
    evals = prediction_correction.scheme(target, **stages).evals.total
    pilots, ends = x[:PILOTS], (HORIZON, EARLY_STOP)
    calls = {
        "predict_correct": (evals, lambda: jaxdiff.predict_correct(target, x, key, **stages)),
        "log_likelihood, 2 probes": (None, lambda: jaxdiff.likelihood.log_likelihood(
            target, x[:POINTS], key, early_stop=EARLY_STOP, horizon=HORIZON, probes=2, rtol=1e-3, atol=1e-3)),
        "fit_grid, 8 evaluations": (None, lambda: jaxdiff.fit_grid(kernels.unipc(target), pilots, *ends, 8)),
        "plan in W2, 8 evaluations": (None, lambda: jaxdiff.plan(
            evals=8, metric="w2", score=target, dim=d, horizon=HORIZON, early_stop=EARLY_STOP, key=key).grid),
    }  # fmt: skip
    timings = interleaved(
        {"score alone": functools.partial(bare_loop, target, table, x)}
        | {name: call for name, (_, call) in calls.items()},
        repeats,
    )
    score = timings["score alone"].median / EVALS
    about = {"part": "call", "score": law.name, "d": d, "particles": n}
    return [
        about
        | {"kernel": name, "kind": "call", "seconds": timings[name].median, "first_s": timings[name].first}
        | ({"over_score": timings[name].median / evals / score} if evals else {})
        for name, (evals, _) in calls.items()
    ]


def rows(quick, repeats):
    """The rows of all cases."""
    size = "quick" if quick else "full"
    case_rows(LAWS[0](4), 4, 256, 1)  # not timed: the first run of a process also starts JAX
    found = []
    for make in LAWS:
        for d in DIMENSIONS[size]:
            law = make(d)
            found += case_rows(law, d, particles(law, d, COORDINATES[size]), repeats)
    repeats = 1 if quick else repeats
    for d in (DENSE, CALLED):
        found += product_rows(mixture(d), d, POINTS, repeats)
    law = mixture(CALLED)
    return found + call_rows(law, CALLED, particles(law, CALLED, COORDINATES[size]), repeats)


def met(row):
    """Whether a row meets its requirement; None where it has none."""
    most = {"stages": STAGES, "multistep": MULTISTEP}.get(row["kind"])
    if most is None:
        return None
    return row["over_parts" if row["noises"] else "over_ddim"] <= most


def verdict(rows):
    """How many requirements are met, and the ratios of the kernels that miss theirs."""
    rows = [row for row in rows if row["part"] == "kernel"]
    held = [(row, met(row)) for row in rows if met(row) is not None]
    ratio = lambda row: row["over_parts" if row["noises"] else "over_ddim"]
    late = [row["later_s"] for row in rows]
    said = (
        f"{sum(good for _, good in held)} of {len(held)} requirements on the time of an evaluation are met, and "
        f"{sum(seconds <= LATER for seconds in late)} of {len(late)} on the first call."
    )
    for law in dict.fromkeys(row["score"] for row, _ in held):
        own = [ratio(row) for row, _ in held if row["score"] == law]
        missed = [row for row, good in held if row["score"] == law and not good]
        said += f" {law}: ratios of {min(own):.2f} to {max(own):.2f}, median {np.median(own):.2f}"
        said += f", {len(missed)} missed." if missed else "."
    return said


def draw(rows, path):
    """The time for an evaluation over DDIM's, kernel by kernel."""
    rows = [row for row in rows if row["part"] == "kernel"]
    laws, dims = (list(dict.fromkeys(row[name] for row in rows)) for name in ("score", "d"))
    names = list(dict.fromkeys(row["kernel"] for row in rows))
    figure = plots.canvas(4 * len(laws), 6)
    axes = figure.subplots(1, len(laws), sharex=True, sharey=True, squeeze=False)[0]
    for ax, law in zip(axes, laws, strict=True):
        for index, d in enumerate(dims):
            of = {row["kernel"]: row["over_ddim"] for row in rows if (row["score"], row["d"]) == (law, d)}
            shown = [name for name in names if name in of]
            look = {"color": drawing.COLOURS[index], "marker": drawing.MARKERS[index], "ls": "", "label": f"d = {d}"}
            ax.plot([of[name] for name in shown], [names.index(name) for name in shown], **look)
        ax.axvline(1, color="black", lw=1, ls=":")
        ax.set(xscale="log", title=law, xlabel="time for an evaluation over DDIM's")
        ax.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        ax.minorticks_off()
        ax.set_yticks(range(len(names)), names)
        ax.grid(alpha=0.25, lw=0.6)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=len(dims))
    return plots.saved(figure, path)


COLUMNS = (
    "score", "d", "kernel", "kind", "median_ms", "seconds", "first_s", "later_s", "over_ddim", "over_score",
    "over_parts",
)  # fmt: skip
STUDY = studies.Study(NAME, QUESTION, rows, COLUMNS, verdict, draw, double=False)

if __name__ == "__main__":
    studies.main(STUDY)
