"""Which kernel, on which grid, for how many score evaluations?

Six laws with exact scores (laws/mixtures.py), from T = 5 to delta = 1e-3, in float64. The error of an ODE kernel is the
median relative L2 distance to the end points of 2,000 steps of RK4 from the same starts. The error of a kernel with
noise is the exact KL where its output is Gaussian, and elsewhere the energy distance and sliced W2 of samples; the
floor is the largest of eight exact samples'. A product with the score's Jacobian or its transpose counts as an
evaluation.
"""

import functools

import jax
import numpy as np

from benchmarks.harness import command_line, drawing, places, records
from benchmarks.harness.environment import environment
from benchmarks.laws.mixtures import LAWS
from benchmarks.oracles.flat_gaussian import FLAT, Spectrum
from benchmarks.oracles.work_precision_tables import (
    BEATS_BY,
    BEATS_FROM,
    BEATS_ON,
    FITTED,
    best,
    duels,
    fitted,
    knows_no_law,
    named,
    over_laws,
    report,
)
from benchmarks.samplers.methods import ODE, SDE
from benchmarks.samplers.padded_tables import BUDGETS, fresh, run, silence
from jaxdiff import fit_grid, grids, information, kernels, metrics, plots
from jaxdiff.files import written
from jaxdiff.processes import forward

NAME = "work_precision"
QUESTION = "Which kernel, on which grid, for how many score evaluations?"
HORIZON, EARLY_STOP = 5.0, 1e-3
FITTED_BUDGETS = (5, 8, 10, 15, 20, 30)
STARTS, FIT_STARTS, REFERENCE_STEPS = 256, 32, 2000
SAMPLES, PROJECTIONS, FLOOR_SAMPLES = 1024, 128, 8
METRICS = ("energy", "sliced_w2")
TO_FIT = ("dpm_solver 2", "exponential_adams 3", "unipc 2", "unipc 3")
GRIDS = {
    "uniform": grids.uniform,
    "geometric": grids.geometric,
    "log_snr": grids.log_snr,
    "karras": grids.karras,
    "cosine": grids.cosine,
    "benton": grids.exponential_then_uniform,
}
OPTIMAL = "optimal"  # for the path KL of ancestral sampling

# Required: geometric means over the six laws on a named grid, and the gain of fitted grids up to 10 evaluations.
ODE_AT_MOST = {10: 1e-2, 20: 1e-3}
FITTED_TIMES_LESS, FITTED_UP_TO = 3, 10
KL_AT_MOST = {10: 1e-2, 20: 1e-5}


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
    """A row of the record: columns of lists over the budgets that suffice for at least one step."""
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
    """Rows of the kernels with noise on the flat Gaussian: exact KL."""
    flat, rows = Spectrum.of_flat(), []
    for label in methods:
        kernel = flat.kernel(label)
        for grid, of_budget in grids_of(FLAT, budgets, kernel.evals_per_step + SDE[label].products).items():
            measured = {b: {"kl": flat.kl(kernel, chosen)} for b, chosen in of_budget.items() if chosen is not None}
            rows.append(row(FLAT, "SDE", label, grid, measured))
    return rows


def sample_rows(name, budgets, methods, n_samples):
    """Rows of the kernels with noise on a mixture: distances of samples, and a row of their floor."""
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


def verdict(rows, budgets):
    """The requirements that were missed, in a sentence."""
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
    """Error against evaluations: ODE kernels over all laws, and kernels with noise on the flat Gaussian."""
    figure = plots.canvas(10.5, 4.6)
    left, right = figure.subplots(1, 2)
    ode, kl = over_laws(rows, "ODE", "error"), over_laws(rows, "SDE", "kl")
    for ax, table, kind in ((left, ode, "error"), (right, kl, "kl")):
        for i, kernel in enumerate(SHOWN[kind]):
            found = {b: best(table, b, lambda k, g, kernel=kernel: k == kernel and named(k, g)) for b in BUDGETS}
            drawing.line(ax, {b: one[0] for b, one in found.items() if one}, kernel, i)
        ax.set_xlabel("score evaluations")
        drawing.powers(ax, BUDGETS)
    found = {b: best(ode, b, fitted) for b in BUDGETS}
    drawing.line(left, {b: one[0] for b, one in found.items() if one}, "best on a fitted grid", None)
    laws = len({one["law"] for one in rows})
    left.set_title(f"ODE: relative error of the end point,\nmedian, geometric mean over {laws} laws")
    right.set_title("SDE: KL on the flat Gaussian,\n8 of 256 directions of variance 1, nats")
    for ax in (left, right):
        ax.legend(fontsize=8, frameon=False)
    return plots.saved(figure, path)


def page(rows, said, stem):
    """The page of the tables, with the figure STEM.png."""
    return f"# {QUESTION}\n\n{said}\n\n![Error against evaluations]({stem}.png)\n\n{report(rows, BUDGETS)}\n"


def publish(rows, said, path):
    """Write the tables and the figure as NAME.md and NAME.png."""
    with written(path.with_suffix(".md")) as draft:
        draft.write_text(page(rows, said, path.stem), encoding="utf-8")
    draw(rows, path.with_suffix(".png"))


def main(argv=None):
    """Print the tables and the verdict; write the record and the figure."""
    jax.config.update("jax_enable_x64", True)
    options = command_line.parsed(command_line.parser(QUESTION), argv)
    about = environment()
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
        print(records.write_rows(NAME, rows, QUESTION, said, about, options.json))
        publish(rows, said, options.json or places.ROOT / "docs" / NAME)


if __name__ == "__main__":
    main()
