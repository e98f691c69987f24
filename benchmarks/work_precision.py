"""Which kernel, on which grid, for how many score evaluations?

Six laws with exact scores (laws.py), T = 5 to delta = 1e-3, float64. Kernels of the ODE: relative L2 distance to the
end points of 2,000 steps of RK4 from the same starts, the median over them. Kernels that draw noise: the exact KL of
the law from the output where it is Gaussian; elsewhere energy distance and sliced W2 of samples, whose floor is the
largest of eight exact samples'. A product with the score's Jacobian or its transpose counts as an evaluation.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import figures, harness
from benchmarks.laws import LAWS, RANK
from jaxdiff import fit_grid, grids, information, kernels, metrics, noise, plots, tables, targets
from jaxdiff.files import written
from jaxdiff.processes import forward, ou

NAME = "work_precision"
QUESTION = "Which kernel, on which grid, for how many score evaluations?"
HORIZON, EARLY_STOP = 5.0, 1e-3
BUDGETS = (5, 8, 10, 15, 20, 30, 50, 100, 200)
FITTED_BUDGETS = (5, 8, 10, 15, 20, 30)
STARTS, FIT_STARTS, REFERENCE_STEPS = 256, 32, 2000
SAMPLES, PROJECTIONS, FLOOR_SAMPLES = 1024, 128, 8
METRICS = ("energy", "sliced_w2")
PRODUCTS = 2  # of Lanczos' method in covariance matching; each is one with the Jacobian and one with its transpose
FLAT = "rank 8, d = 256"
FITTED = "fitted"


class Method(NamedTuple):
    """How a kernel is made from a law, and what a step costs beyond its own evaluations."""

    make: Callable[[Any], Any]
    products: int = 0


def of_score(name, *args, **options):
    return Method(lambda law: getattr(kernels, name)(law.score, *args, **options))


def corrected(law):
    corrector = kernels.langevin(law.score, 1.0, scheme="exponential")
    return kernels.predictor_corrector(kernels.ancestral(law.score), corrector, 1)


ODE = {
    "euler": of_score("euler"),
    "eta_family, score": of_score("eta_family", 0.0, frozen="score"),
    "ddim": of_score("ddim"),
    "heun": of_score("heun"),
    "rk4": of_score("rk4"),
    "randomized_midpoint": of_score("randomized_midpoint"),
    **{f"deis {p}": of_score("deis", p) for p in (2, 3, 4)},
    **{f"dpm_solver {p}": of_score("dpm_solver", p) for p in (2, 3)},
    **{f"exponential_adams {p}": of_score("exponential_adams", p) for p in (3, 4)},
    **{f"unipc {p}": of_score("unipc", p) for p in (1, 2, 3)},
}
SDE = {
    "euler_maruyama": of_score("euler_maruyama"),
    "exponential_euler": of_score("exponential_euler"),
    "eta_family, noise": of_score("eta_family", 1.0, frozen="noise"),
    "ancestral": of_score("ancestral"),
    "moment_matched": Method(lambda law: kernels.moment_matched(law.score, law.mmse)),
    "moment_matched per direction": Method(
        lambda law: kernels.moment_matched(law.score, law.mmse, basis=law.mmse.basis)
    ),
    "covariance_matched": Method(
        lambda law: kernels.covariance_matched(law.score, products=PRODUCTS), products=2 * PRODUCTS
    ),
    "dpm_solver 2, eta = 1": of_score("dpm_solver", 2, eta=1.0),
    "sa_solver, eta = 0.4": of_score("sa_solver"),
    "sa_solver, eta = 1": of_score("sa_solver", eta=1.0),
    "seeds": of_score("seeds"),
    "stochastic_runge_kutta": of_score("stochastic_runge_kutta"),
    "heun, churn 5": of_score("heun", 5.0),
    "ode_then_noise": of_score("ode_then_noise"),
    "predictor_corrector": Method(corrected),
}
TO_FIT = ("dpm_solver 2", "exponential_adams 3", "unipc 2", "unipc 3")
PEERS = [(name, grid) for name in ("ddim", "heun", "dpm_solver 2", "unipc 2") for grid in ("karras", "log_snr")]
GRIDS = {
    "uniform": grids.uniform,
    "geometric": grids.geometric,
    "log_snr": grids.log_snr,
    "karras": grids.karras,
    "cosine": grids.cosine,
    "benton": grids.exponential_then_uniform,
}
OPTIMAL = "optimal"  # for the path KL of ancestral sampling

# What was asked for: geometric means over the six laws on a named grid, and how much less fitted grids leave up to 10.
ODE_AT_MOST = {10: 1e-2, 20: 1e-3}
FITTED_TIMES_LESS, FITTED_UP_TO = 3, 10
KL_AT_MOST = {10: 1e-2, 20: 1e-5}
BEATS_BY, BEATS_ON, BEATS_FROM = 2, 4, 8


@functools.partial(jax.jit, static_argnames="draw")
def walk(kernel, table, n_steps, x, key, draw):
    """Positions after n_steps of a padded table, one compilation for all; draw(key, kernel, k, x) is the noise."""

    def body(k, state):
        return kernel.step(kernel.score, state, jax.tree.map(lambda column: column[k], table), draw(key, kernel, k, x))

    return kernel.position(jax.lax.fori_loop(0, n_steps, body, kernel.init(x)))


def run(kernel, grid, x, *, key=None, draw, most=BUDGETS[-1]):
    """`walk` down a grid of at most `most` steps."""
    pad = lambda column: jnp.asarray(np.concatenate([column, np.zeros((most + 1 - len(grid), *column.shape[1:]))]))
    return walk(kernel, jax.tree.map(pad, kernel.coefficients(grid)), len(grid) - 1, x, key, draw)


def silence(key, kernel, k, x):
    """No noise, for kernels of the ODE."""


def fresh(key, kernel, k, x):
    """Independent draws for every particle."""
    m, particle = kernel.noises_per_step, jnp.arange(len(x), dtype=jnp.uint32)
    z = [noise.normal(key, particle, k, x.shape[1], x.dtype, slot=slot, slots=m) for slot in range(m)]
    return z[0] if m == 1 else jnp.stack(z)


def impulses(key, kernel, k, x):
    """Particle 1 + i sees increment i of the run as 1, and all others as 0."""
    m = kernel.noises_per_step
    z = [jnp.zeros_like(x).at[1 + k * m + i].set(1.0) for i in range(m)]
    return z[0] if m == 1 else jnp.stack(z)


def output_variances(kernel, grid):
    """Variances of the output from N(0, I), where the score is linear and coordinates stay apart."""
    x = jnp.zeros((1 + (len(grid) - 1) * kernel.noises_per_step, 2)).at[0].set(1.0)
    x = jnp.concatenate([x, jnp.zeros((1 + BUDGETS[-1] * kernel.noises_per_step - len(x), 2))])
    return np.sum(np.asarray(run(kernel, grid, x, draw=impulses)) ** 2, axis=0)


class Spectrum(NamedTuple):
    """The flat Gaussian by its two variances: all that its kernels act on."""

    law: Any
    multiplicity: np.ndarray
    score: Any
    mmse: Any

    @classmethod
    def of_flat(cls, d=256):
        law, counts = targets.gaussian(np.zeros(2), [1.0, 0.0]), np.array([RANK, d - RANK])
        whole = targets.gaussian(np.zeros(d), np.where(np.arange(d) < RANK, 1.0, 0.0)).mmse
        return cls(law, counts, law.score, whole)

    def kernel(self, name):
        """A kernel on the two variances: moment matching takes the mean mmse of all directions, or each its own."""
        if name == "moment_matched":
            return kernels.moment_matched(self.score, lambda snr: self.mmse(snr), dim=int(self.multiplicity.sum()))
        return SDE[name].make(self.law)

    def kl(self, kernel, grid):
        """KL of the law at early_stop from the output, nats."""
        t = grid[-1]
        ratio = (np.exp(-2 * t) * np.array([1.0, 0.0]) + ou.sigma(t) ** 2) / output_variances(kernel, grid)
        return float(self.multiplicity @ (ratio - 1 - np.log(ratio)) / 2)


def grids_of(law, budgets, cost):
    """{grid: {budget: grid or None}} for a kernel that takes `cost` evaluations a step."""
    steps = {budget: budget // cost for budget in budgets}
    made = {
        name: {b: make(HORIZON, EARLY_STOP, n) if n else None for b, n in steps.items()} for name, make in GRIDS.items()
    }
    return made | {OPTIMAL: {b: optimal_grid(law, n) if n else None for b, n in steps.items()}}


@functools.cache
def step_cost(law):
    return information.step_cost("ancestral", LAWS[law]().mmse)


@functools.cache
def optimal_grid(law, n_steps):
    return grids.optimal(step_cost(law), HORIZON, EARLY_STOP, n_steps)


def row(law, kind, kernel, grid, measured):
    """A row of the record: columns of lists over the budgets that pay for a step at least."""
    finite = lambda value: float(f"{value:.6g}") if np.isfinite(value) else None  # diverged
    columns = {name: [finite(one[name]) for one in measured.values()] for name in next(iter(measured.values()))}
    return {"law": law, "kind": kind, "kernel": kernel, "grid": grid, "evals": list(measured), **columns}


def ode_rows(name, budgets, methods, to_fit):
    """Rows of the kernels of the ODE on one law."""
    law = LAWS[name]()
    x, others = (
        jax.random.normal(jax.random.key(seed), (n, law.mmse.dim)) for seed, n in ((0, STARTS), (1, FIT_STARTS))
    )
    fine, rk4 = grids.log_snr(HORIZON, EARLY_STOP, REFERENCE_STEPS), kernels.rk4(law.score)
    end, others_end = (run(rk4, fine, start, draw=silence, most=REFERENCE_STEPS) for start in (x, others))
    rows = []
    for label in methods:
        kernel = ODE[label].make(law)

        def error(grid, kernel=kernel):
            away = np.linalg.norm(run(kernel, grid, x, draw=silence) - end, axis=-1) / np.linalg.norm(end, axis=-1)
            return {"error": float(np.median(away))}

        choices = grids_of(name, budgets, kernel.evals_per_step)
        if label in to_fit:
            choices[FITTED] = {
                b: fit_grid(kernel, others, HORIZON, EARLY_STOP, b, reference=others_end)
                for b in budgets
                if b in FITTED_BUDGETS
            }
        for grid, of_budget in choices.items():
            measured = {b: error(chosen) for b, chosen in of_budget.items() if chosen is not None}
            rows.append(row(name, "ODE", label, grid, measured))
    return rows


def kl_rows(budgets, methods):
    """Rows of the kernels that draw noise on the flat Gaussian: exact KL."""
    flat, rows = Spectrum.of_flat(), []
    for label in methods:
        kernel = flat.kernel(label)
        for grid, of_budget in grids_of(FLAT, budgets, kernel.evals_per_step + SDE[label].products).items():
            measured = {b: {"kl": flat.kl(kernel, chosen)} for b, chosen in of_budget.items() if chosen is not None}
            rows.append(row(FLAT, "SDE", label, grid, measured))
    return rows


def sample_rows(name, budgets, methods, n_samples):
    """Rows of the kernels that draw noise on a mixture: distances of samples, and a row of their floor."""
    law, (key_exact, key_start, key_run, key_sliced) = LAWS[name](), jax.random.split(jax.random.key(5), 4)
    exact, *others = (
        np.asarray(forward(law.sample(key, n_samples), EARLY_STOP, jax.random.normal(key, (n_samples, law.mmse.dim))))
        for key in jax.random.split(key_exact, 1 + FLOOR_SAMPLES)
    )

    def distances(x):
        if not np.isfinite(x).all():
            return dict.fromkeys(METRICS, np.inf)
        return {
            "energy": metrics.energy_distance(x, exact).value,
            "sliced_w2": metrics.sliced_w2(x, exact, key_sliced, n_projections=PROJECTIONS).value,
        }

    of_others = [distances(x) for x in others]
    floor = {metric: max(one[metric] for one in of_others) for metric in METRICS}
    rows, x = [row(name, "floor", "exact", "", {0: floor})], jax.random.normal(key_start, exact.shape)
    for label in methods:
        kernel = SDE[label].make(law)
        for grid, of_budget in grids_of(name, budgets, kernel.evals_per_step + SDE[label].products).items():
            measured = {
                b: distances(np.asarray(run(kernel, chosen, x, key=key_run, draw=fresh)))
                for b, chosen in of_budget.items()
                if chosen is not None
            }
            rows.append(row(name, "SDE", label, grid, measured))
    return rows


def over_laws(rows, kind, metric):
    """{(kernel, grid): {evals: geometric mean over the laws}} of what was measured on all of them."""
    laws = {one["law"] for one in rows if one["kind"] == kind and metric in one}
    values = {}
    for one in rows:
        if one["kind"] == kind and metric in one:
            for evals, value in zip(one["evals"], one[metric], strict=True):
                of_evals = values.setdefault((one["kernel"], one["grid"]), {})
                of_evals.setdefault(evals, []).append(np.inf if value is None else value)
    return {
        pair: {evals: geometric_mean(all_) for evals, all_ in of_evals.items() if len(all_) == len(laws)}
        for pair, of_evals in values.items()
    }


def geometric_mean(values):
    with np.errstate(divide="ignore"):
        return float(np.exp(np.mean(np.log(np.maximum(values, 0)))))


def best(table, evals, allowed=lambda kernel, grid: True):
    """(value, kernel, grid) that is least at a number of evaluations; None if nothing was measured there."""
    found = [(of[evals], *pair) for pair, of in table.items() if evals in of and allowed(*pair)]
    return min(found, default=None)


def named(kernel, grid):
    return grid != FITTED


def fitted(kernel, grid):
    return grid == FITTED


def knows_no_law(kernel, grid):
    """Kernels that are not exact on every Gaussian."""
    return kernel not in ("moment_matched per direction", "covariance_matched")


def duels(rows, budgets):
    """A row for every law and budget: the best peer, our best pair, and how many times less it leaves."""
    found = []
    for law in dict.fromkeys(one["law"] for one in rows if one["kind"] == "ODE"):
        table = over_laws([one for one in rows if one["law"] == law], "ODE", "error")
        for budget in budgets:
            theirs = best(table, budget, lambda *pair: pair in PEERS)
            ours, unfitted = best(table, budget), best(table, budget, named)
            if theirs and ours:
                found.append(
                    {
                        "law": law,
                        "evals": budget,
                        "peer": " on ".join(theirs[1:]),
                        "its_error": theirs[0],
                        "jaxdiff": " on ".join(ours[1:]),
                        "error": ours[0],
                        "times_less": theirs[0] / ours[0],
                        "without_fitting": theirs[0] / unfitted[0],
                    }
                )
    return found


def verdict(rows, budgets):
    """What was asked for and missed, in a sentence."""
    ode, kl, missed = over_laws(rows, "ODE", "error"), over_laws(rows, "SDE", "kl"), []
    for budget, most in ODE_AT_MOST.items():
        if found := best(ode, budget, named):
            missed += [f"ODE at {budget}: {found[0]:.2g} ({most:g} asked)"] * (found[0] > most)
    for budget in (b for b in budgets if b <= FITTED_UP_TO):
        plain, fit = best(ode, budget, named), best(ode, budget, fitted)
        if plain and fit:
            gain = plain[0] / fit[0]
            missed += [f"fitted at {budget}: {gain:.2g} times less ({FITTED_TIMES_LESS} asked)"] * (
                gain < FITTED_TIMES_LESS
            )
    for budget, most in KL_AT_MOST.items():
        if found := best(kl, budget, knows_no_law):
            missed += [f"KL at {budget}: {found[0]:.2g} ({most:g} asked)"] * (found[0] > most)
    contests = duels(rows, budgets)
    for budget in (b for b in budgets if b >= BEATS_FROM):
        gains = [one["times_less"] for one in contests if one["evals"] == budget]
        won = sum(gain >= BEATS_BY for gain in gains)
        missed += [f"peers at {budget}: beaten by {BEATS_BY} on {won} laws ({BEATS_ON} asked)"] * (
            won < min(BEATS_ON, len(gains))
        )
    return "Missed: " + "; ".join(missed) + "." if missed else "All figures asked for are reached."


def per_kernel(table, budgets, allowed=named):
    """A row for every kernel: its value on the best grid, by number of evaluations."""
    rows = []
    for kernel in dict.fromkeys(kernel for kernel, _ in table):
        found = {b: best(table, b, lambda k, grid, kernel=kernel: k == kernel and allowed(k, grid)) for b in budgets}
        if any(found.values()):
            rows.append({"kernel": kernel} | {str(b): one[0] for b, one in found.items() if one})
    return rows


def reaching_the_floor(rows):
    """A row for every kernel that draws noise: the fewest evaluations from which on it stays within the floor."""
    floors = {one["law"]: one for one in rows if one["kind"] == "floor"}
    fewest = {}
    for one in rows:
        if one["kind"] == "SDE" and one["law"] in floors:
            floor, evals = floors[one["law"]], None
            found = list(zip(one["evals"], one["energy"], one["sliced_w2"], strict=True))
            for budget, energy, sliced in reversed(found):
                if energy is None or energy > floor["energy"][0] or sliced > floor["sliced_w2"][0]:
                    break
                evals = budget
            of_kernel = fewest.setdefault(one["kernel"], dict.fromkeys(floors))
            of_kernel[one["law"]] = min((b for b in (evals, of_kernel[one["law"]]) if b), default=None)
    return [{"kernel": kernel} | of_law for kernel, of_law in fewest.items()]


def recommendations(rows, budgets):
    """Which kernel for which budget: a row for every number of evaluations."""
    ode, kl, found = over_laws(rows, "ODE", "error"), over_laws(rows, "SDE", "kl"), []
    for budget in budgets:
        choices = best(ode, budget, named), best(ode, budget, fitted), best(kl, budget, knows_no_law)
        found.append({"evals": budget})
        for column, choice in zip(CHOICES, choices, strict=True):
            if choice:
                value, kernel, grid = choice
                found[-1][column] = f"`{kernel}`{'' if grid == FITTED else f', {grid}'}: {value:.2g}"
    return found


CHOICES = ("ODE, median error", "ODE, grid fitted", "SDE, KL on the flat Gaussian")


def report(rows, budgets):
    """The tables, as text."""
    columns, ode, kl = ["kernel", *map(str, budgets)], over_laws(rows, "ODE", "error"), over_laws(rows, "SDE", "kl")
    mixtures = over_laws([one for one in rows if one["law"] != FLAT], "ODE", "error")
    contests = ("law", "evals", "peer", "its_error", "jaxdiff", "error", "times_less", "without_fitting")
    laws = [one["law"] for one in rows if one["kind"] == "floor"]
    parts = [
        ("ODE: median error, geometric mean over the laws, best named grid", per_kernel(ode, budgets), columns),
        ("The same, on fitted grids, from starts they have not seen", per_kernel(ode, budgets, fitted), columns),
        ("The same, fitted, on the mixtures alone", per_kernel(mixtures, budgets, fitted), columns),
        ("SDE: KL on the flat Gaussian, nats, best grid", per_kernel(kl, budgets), columns),
        ("SDE: evaluations until samples are within the floor", reaching_the_floor(rows), ["kernel", *laws]),
        (
            "ODE: the best pair against the best peer on Karras' or the log-snr grid",
            duels(rows, [b for b in budgets if b >= BEATS_FROM]),
            contests,
        ),
        ("Which kernel for which budget", recommendations(rows, budgets), ["evals", *CHOICES]),
    ]
    return "\n\n".join(f"## {title}\n\n{tables.table(table, columns)}" for title, table, columns in parts if table)


SHOWN = {
    "error": ("ddim", "heun", "rk4", "dpm_solver 2", "exponential_adams 4", "unipc 2", "unipc 3"),
    "kl": (
        "exponential_euler",
        "ancestral",
        "ode_then_noise",
        "heun, churn 5",
        "dpm_solver 2, eta = 1",
        "sa_solver, eta = 0.4",
    ),
}


def draw(rows, path):
    """Error against evaluations: kernels of the ODE over all laws, kernels that draw noise on the flat Gaussian."""
    figure = plots.canvas(10.5, 4.6)
    left, right = figure.subplots(1, 2)
    ode, kl = over_laws(rows, "ODE", "error"), over_laws(rows, "SDE", "kl")
    for ax, table, kind in ((left, ode, "error"), (right, kl, "kl")):
        for i, kernel in enumerate(SHOWN[kind]):
            found = {b: best(table, b, lambda k, g, kernel=kernel: k == kernel and named(k, g)) for b in BUDGETS}
            figures.line(ax, {b: one[0] for b, one in found.items() if one}, kernel, i)
        ax.set_xlabel("score evaluations")
        figures.powers(ax, BUDGETS)
    found = {b: best(ode, b, fitted) for b in BUDGETS}
    figures.line(left, {b: one[0] for b, one in found.items() if one}, "best on a fitted grid", None)
    laws = len({one["law"] for one in rows})
    left.set_title(f"ODE: relative error of the end point,\nmedian, geometric mean over {laws} laws")
    right.set_title("SDE: KL on the flat Gaussian,\n8 of 256 directions of variance 1, nats")
    for ax in (left, right):
        ax.legend(fontsize=8, frameon=False)
    return plots.saved(figure, path)


def publish(rows, said, path):
    """Tables and figure beside one another, NAME.md and NAME.png."""
    page = f"# {QUESTION}\n\n{said}\n\n![Error against evaluations]({path.stem}.png)\n\n{report(rows, BUDGETS)}\n"
    with written(path.with_suffix(".md")) as draft:
        draft.write_text(page, encoding="utf-8")
    draw(rows, path.with_suffix(".png"))


def main(argv=None):
    """Print the tables and the verdict; write the record and the figure."""
    jax.config.update("jax_enable_x64", True)
    options = harness.parsed(harness.parser(QUESTION), argv)
    about = harness.environment()
    print(QUESTION, flush=True)
    budgets = BUDGETS[:5:2] if options.quick else BUDGETS
    laws = ["ring of 8", FLAT] if options.quick else list(LAWS)
    rows = []
    for name in laws:
        rows += ode_rows(name, budgets, ODE, TO_FIT[::2] if options.quick else TO_FIT)
        samples = SAMPLES // 4 if options.quick else SAMPLES
        rows += kl_rows(budgets, SDE) if name == FLAT else sample_rows(name, budgets, SDE, samples)
        print(f"{name}: done", flush=True)
    said = verdict(rows, budgets)
    print(f"\n{report(rows, budgets)}\n\n{said}")
    if options.json or not options.quick:
        print(harness.write_rows(NAME, rows, QUESTION, said, about, options.json))
        publish(rows, said, options.json or harness.ROOT / "docs" / NAME)


if __name__ == "__main__":
    main()
