"""The part of `jaxdiff plan` that plans for a model from elsewhere: a function f(y, t) of another process."""

import pathlib
from typing import Any

PREDICTS = {"denoiser": "denoiser", "noise": "noise", "score": "score", "v": "v", "velocity": "flow"}
CLOCKS = ("edm", "vp", "ve", "flow", "ddpm")
EVALS, REQUIRED = 8, ("clock", "predicts", "dim")


def add(parser):
    """Declare the arguments of a model from elsewhere."""
    group = parser.add_argument_group("a model from elsewhere", "a JAX function f(y, t) -> (..., d) of a process's own")
    group.add_argument("--model", metavar="FILE.py:NAME", help="the function: y (..., d) and a time of the process")
    group.add_argument("--clock", choices=CLOCKS, help="the process that the model was trained on, and its times")
    group.add_argument("--predicts", choices=tuple(PREDICTS), help="what the function returns")
    group.add_argument("--data", type=pathlib.Path, metavar="FILE", help="rows (.npy, (n, d)) that did not train it")


def refuse(options):
    """Raise ValueError where arguments of a model are given without --model."""
    for name in ("clock", "predicts", "data"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} needs --model FILE.py:NAME: give it too, or leave --{name} out.")


def run(options):
    """Make the plan in W2 of a model, write plan.json where --out is given, and print it in the model's own times."""
    from jaxdiff import files
    from jaxdiff.app.commands.run_plan import print_plan
    from jaxdiff.app.functions import function_of
    from jaxdiff.planning.model_times import process_named
    from jaxdiff.planning.plan import plan
    from jaxdiff.processes import score_from_model

    missing = [f"--{name}" for name in REQUIRED if getattr(options, name) is None]
    if missing:
        raise ValueError(f"a plan for --model needs {' and '.join(missing)}: give them too.")
    for name in ("target_kl", "second_moment"):
        if getattr(options, name) is not None:
            raise ValueError(f"a plan for --model is in W2 and takes no --{name.replace('_', '-')}: leave it out.")
    if options.metric == "kl":
        raise ValueError("a plan for --model is in W2: leave --metric kl out. A path KL needs a loss curve.")
    process = process_named(options.clock)
    score = score_from_model(function_of(options.model, "model"), process, PREDICTS[options.predicts])
    _check_shape(score, options)
    known: dict[str, Any] = {"dim": options.dim} if options.data is None else {"rows": _rows(options)}
    evals = EVALS if options.evals is None and options.target_w2 is None else options.evals
    goal: dict[str, Any] = {"target_w2": options.target_w2, "evals": evals, "metric": "w2"}
    made = plan(
        **goal, **known, score=score, early_stop=options.early_stop, confidence=options.confidence, progress=True
    )
    times = made.times(process)
    record = made.to_dict() | {"clock": options.clock, "times": times.tolist()}
    if options.out is not None:
        files.check_folder(options.out)
        options.out.mkdir(parents=True, exist_ok=True)
        files.write_json(options.out / "plan.json", record)
    print_plan(made, record, as_json=options.json)
    if not options.json:
        _print_times(made, times, score, known, options)


def _check_shape(score, options):
    """Raise ValueError unless the model can be evaluated at positions of --dim columns."""
    import jax
    import jax.numpy as jnp

    from jaxdiff.files import brief

    y, t = jax.ShapeDtypeStruct((8, options.dim), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    try:
        jax.eval_shape(score, y, t)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{options.model} cannot be evaluated at y of shape (n, {options.dim}) and one time: {brief(error)}. "
            f"It must return an array of the shape of y; check --dim."
        ) from error


def _print_times(made, times, score, known, options):
    """The times of the model's process, and for rows of a table what rounding to them costs."""
    from jaxdiff.guarantees.certify_w2 import certify_w2
    from jaxdiff.types import Sampler

    whole = times.dtype.kind == "i"
    shown = times.tolist() if whole else [float(f"{t:.6g}") for t in times]
    print(f"times of {options.clock}, from noise to data: {shown}")
    if not whole:
        return
    import jax

    kernel, key = made.sampler(score).kernel, jax.random.key(1)
    both = [
        certify_w2(Sampler(kernel, grid), key, **known, particles=512)
        for grid in (made.grid, made.rounded(options.clock))
    ]
    before, after = (f"{one['discretisation'].value:.3g}" for one in both)
    print(f"rounding to whole rows: the distance from the reference was {before} before, and is {after} after")


def _rows(options):
    """The rows of --data, float32."""
    import numpy as np

    from jaxdiff.app.data.archives import read_npy

    rows = read_npy(options.data)
    if rows.ndim != 2 or rows.shape[1] != options.dim:
        raise ValueError(f"--data must hold rows (n, {options.dim}), as --dim says: {options.data} has {rows.shape}.")
    if rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        raise ValueError(f"--data must hold finite numbers: {options.data} does not ({rows.dtype}). Remove such rows.")
    return rows.astype(np.float32)
