"""What is no argument is refused by jaxdiff, in a sentence that names it: no traceback of JAX's or NumPy's."""

import inspect
import pathlib
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxdiff
from jaxdiff import curves, kernels, likelihood, noise, ode, processes, scores
from jaxdiff.kernels import predictor_corrector
from jaxdiff.sampling.sample import sample, sample_in_turn, trajectory

PACKAGE = pathlib.Path(jaxdiff.__file__).parent
KEY, GRID, X = jax.random.key(0), np.array([1.0, 0.5, 0.2]), np.ones((4, 2), np.float32)


def score(x, t):
    return -x


class Unhashable:
    """A callable without a hash."""

    __hash__ = None

    def __call__(self, x, t):
        return -x


KERNEL, LANGEVIN = kernels.ddim(score), kernels.langevin(score, 0.5)
NO_FUNCTIONS = {
    "None": None,
    "an array": np.ones(2),
    "a list": [score],
    "text": "score",
    "of one argument": lambda x: x,
    "of three arguments": lambda x, t, y: x,
    "of nothing but keywords": lambda *, x, t: x,
    "a Partial with too much": Partial(score, 1.0),
    "without a hash": Unhashable(),
}
NO_VALUES = {
    "nothing": lambda x, t: None,
    "a tuple": lambda x, t: (x, x),
    "a list": lambda x, t: [x],
    "a dict": lambda x, t: {"score": x},
    "text": lambda x, t: "x",
    "a number": lambda x, t: 0.0,
    "NumPy's": lambda x, t: np.tanh(x),
}
NO_DTYPES = {
    "complex": lambda x, t: jax.lax.complex(x, x),
    "whole numbers": lambda x, t: x.astype(jnp.int32),
    "an array of NumPy of another shape": lambda x, t: np.ones(3, np.float32),
    "too few columns": lambda x, t: x[:, :1],
}
NO_PARTICLES = {
    "None": None,
    "a dict": {"x": X},
    "a tuple": (X, X),
    "a list of unequal arrays": [X, X[0]],
    "text": "x",
    "strings": np.array([["a", "b"]]),
    "objects": np.array([[object(), None]]),
    "one row": X[0],
    "whole numbers": np.ones((4, 2), int),
    "complex": X + 1j,
    "a function": score,
}
NO_GRIDS = {
    "None": None,
    "text": "log_snr",
    "strings": ["1.0", "0.5"],
    "a dict": {"grid": GRID},
    "a function": score,
    "ragged": [[1.0, 0.5], [0.2]],
    "complex": GRID + 1j,
    "two axes": GRID[None],
    "a number": 1.0,
}
NO_KEYS = {"None": None, "a number": 0, "text": "key", "floats": np.ones(2), "many": jax.random.split(KEY, 3)}
NO_KERNELS = {
    "None": None,
    "a constructor": kernels.ddim,
    "the class": jaxdiff.Kernel,
    "a list": [KERNEL],
    "a score": score,
    "text": "ddim",
}
NO_TIMES = {"None": None, "text": "late", "a list": [0.5], "two": np.ones(2), "complex": 1j, "a dict": {}}
NO_WHOLES = {"text": "two", "a half": 1.5, "nothing": 0, "a list": [1], "two": np.ones(2)}
NO_OPTIONS = {
    "noise": {"None": None, "another": "sobol", "a list": ["counter"]},
    "chunk": NO_WHOLES,
    "mesh": {"text": "devices", "a list": jax.devices()},
    "first_particle": {"text": "0", "a half": 0.5, "below 0": -1, "None": None},
}
WITH_SCORE = {name: () for name in kernels.__all__ if name != "predictor_corrector"} | {
    "langevin": (0.5,),
    "moment_matched": (lambda snr: 1 / (1 + snr),),
}


def _cases():
    """(entry, argument, kind, call) of all that must be refused."""

    def each(entry, argument, kinds, call):
        for kind, value in kinds.items():
            yield f"{entry}({argument}: {kind})", lambda value=value: call(value)

    bare = inspect.unwrap  # without jaxtyping's own check
    runs = {
        "sample": lambda kernel=KERNEL, x=X, grid=GRID, key=KEY, **options: bare(sample)(
            kernel, x, grid, key, **options
        ),
        "sample_in_turn": lambda kernel=KERNEL, x=X, grid=GRID, key=KEY, **options: bare(sample_in_turn)(
            [(kernel, grid)], x, key, **options
        ),
        "trajectory": lambda kernel=KERNEL, x=X, grid=GRID, key=KEY, **options: bare(trajectory)(
            kernel, x, grid, key, GRID[1:], **options
        ),
    }
    for entry, run in runs.items():
        for argument, kinds in {"kernel": NO_KERNELS, "x": NO_PARTICLES, "grid": NO_GRIDS, "key": NO_KEYS}.items():
            yield from each(entry, argument, kinds, lambda value, run=run, argument=argument: run(**{argument: value}))
        for argument, kinds in NO_OPTIONS.items():
            yield from each(entry, argument, kinds, lambda value, run=run, argument=argument: run(**{argument: value}))
        returns = NO_VALUES | NO_DTYPES
        yield from each(entry, "score returns", returns, lambda value, run=run: run(kernel=kernels.ddim(value)))
    none = {"None": None, "text": "all", "strings": ["1.0"], "nan": [np.nan], "a dict": {}, "two axes": GRID[None]}
    yield from each("trajectory", "save_at", none, lambda at: bare(trajectory)(KERNEL, X, GRID, KEY, at))
    stages = {"None": None, "a kernel": KERNEL, "kernels": [KERNEL], "none": [], "a number": 1}
    yield from each("sample_in_turn", "stages", stages, lambda value: bare(sample_in_turn)(value, X, KEY))
    for name, more in WITH_SCORE.items():
        options = {"dim": 2} if name == "moment_matched" else {}
        make = lambda value, name=name, more=more, options=options: bare(getattr(kernels, name))(
            value, *more, **options
        )
        yield from each(name, "score", NO_FUNCTIONS, make)
    for name, argument in (("ddim", "eta"), ("eta_family", "eta"), ("dpm_solver", "eta"), ("sa_solver", "eta")):
        make = lambda value, name=name, argument=argument: bare(getattr(kernels, name))(score, **{argument: value})
        yield from each(name, argument, NO_TIMES, make)
    for argument in ("churn", "noise_scale"):
        make = lambda value, argument=argument: bare(kernels.heun)(score, **{argument: value})
        yield from each("heun", argument, NO_TIMES, make)
    yield from each("heun", "between", {"None": None, "a number": 1.0}, lambda v: bare(kernels.heun)(score, between=v))
    yield from each("moment_matched", "mmse", {"None": None}, lambda v: bare(kernels.moment_matched)(score, v, dim=2))
    whole = lambda value: bare(kernels.covariance_matched)(score, products=value)
    yield from each("covariance_matched", "products", NO_WHOLES, whole)
    yield from each("langevin", "time", NO_TIMES, lambda value: bare(kernels.langevin)(score, value))
    yield from each(
        "langevin", "scheme", {"None": None, "a list": []}, lambda v: bare(kernels.langevin)(score, 1.0, scheme=v)
    )
    yield from each("langevin", "friction", NO_TIMES, lambda value: bare(kernels.langevin)(score, 1.0, friction=value))
    late = {kind: value for kind, value in NO_TIMES.items() if value is not None}
    yield from each("langevin", "variance", late, lambda value: bare(kernels.langevin)(score, 1.0, variance=value))
    pair = bare(predictor_corrector)
    yield from each("predictor_corrector", "predictor", NO_KERNELS, lambda value: pair(value, LANGEVIN, 1))
    yield from each("predictor_corrector", "corrector", NO_KERNELS, lambda value: pair(KERNEL, value, 1))
    yield from each("predictor_corrector", "m", NO_WHOLES, lambda value: pair(KERNEL, LANGEVIN, value))
    yield from each("predictor_corrector", "step_size", late, lambda value: pair(KERNEL, LANGEVIN, 1, step_size=value))
    conversions = ("score_from_denoiser", "denoiser_from_score", "score_from_noise", "noise_from_score")
    models = {name: bare(getattr(processes, name)) for name in conversions} | {
        "score_from_model": lambda model: bare(processes.score_from_model)(model, processes.edm, "score"),
        "model_from_score": lambda model: bare(processes.model_from_score)(model, processes.edm, "noise"),
        "clipped": lambda model: bare(processes.clipped)(model, 1.0),
        "truncated": lambda model: bare(scores.truncated)(model, 1.0),
    }
    for name, make in models.items():
        yield from each(name, "function", NO_FUNCTIONS, make)
        asked = lambda value, make=make: jax.eval_shape(make(value), jnp.asarray(X), jnp.float32(0.5))
        yield from each(name, "function returns", NO_VALUES, asked)
    none = {"None": None, "a function": processes.vp_linear, "text": "edm"}
    yield from each("score_from_model", "process", none, lambda v: bare(processes.score_from_model)(score, v, "noise"))
    none = {"None": None, "another": "data", "a list": ["noise"]}
    edm = processes.edm
    yield from each("score_from_model", "predicts", none, lambda v: bare(processes.score_from_model)(score, edm, v))
    yield from each("truncated", "radius", NO_TIMES, lambda value: bare(scores.truncated)(score, value))
    rows = {"None": None, "text": "rows", "a dict": {}, "strings": np.array([["a"]]), "images": np.ones((4, 8, 8))}
    yield from each("radius_of", "data", rows, scores.radius_of)
    times = {"horizon": 1.0, "early_stop": 0.5}
    solve = lambda score=score, x=X, start=1.0, end=0.5, **options: bare(ode.solve)(score, x, start, end, **options)
    likely = lambda score=score, x=X, key=KEY, **options: bare(likelihood.log_likelihood)(
        score, x, key, **times | options
    )
    for entry, call in (("solve", solve), ("log_likelihood", likely)):
        for argument, kinds in {"score": NO_FUNCTIONS, "x": NO_PARTICLES, "rtol": NO_TIMES, "atol": NO_TIMES}.items():
            yield from each(entry, argument, kinds, lambda v, call=call, argument=argument: call(**{argument: v}))
        returns = NO_VALUES | NO_DTYPES
        yield from each(entry, "score returns", returns, lambda value, call=call: call(score=value))
    for argument in ("start", "end"):
        yield from each("solve", argument, NO_TIMES, lambda value, argument=argument: solve(**{argument: value}))
    yield from each("log_likelihood", "early_stop", NO_TIMES, lambda value: likely(early_stop=value))
    yield from each("log_likelihood", "horizon", late, lambda value: likely(horizon=value))
    yield from each("log_likelihood", "probes", NO_WHOLES, lambda value: likely(probes=value))
    yield from each("log_likelihood", "key", NO_KEYS, lambda value: likely(key=value, probes=1))
    loss = lambda denoiser=score, data=X, key=KEY, **options: bare(curves.loss_curve)(
        denoiser, data, key, **times | options
    )
    del rows["images"]
    rows |= {"one row": X[:1], "objects": np.array([[object(), None]] * 2), "nan": X * np.nan}
    for argument, kinds in {"denoiser": NO_FUNCTIONS, "data": rows, "key": NO_KEYS, "horizon": NO_TIMES}.items():
        yield from each("loss_curve", argument, kinds, lambda value, argument=argument: loss(**{argument: value}))
    for argument, kinds in {"early_stop": NO_TIMES, "n_nodes": NO_WHOLES, "n_noises": NO_WHOLES}.items():
        yield from each("loss_curve", argument, kinds, lambda value, argument=argument: loss(**{argument: value}))
    yield from each("loss_curve", "denoiser returns", NO_VALUES, lambda value: loss(denoiser=value))
    kinds = {kind: value for kind, value in NO_GRIDS.items() if value is not None}
    yield from each("loss_curve", "grid", kinds, lambda value: loss(grid=value))
    for name in ("initial", "normal", "signs"):
        more = () if name == "initial" else (0,)
        draw = lambda key, name=name, more=more: bare(getattr(noise, name))(key, jnp.arange(2), *more, 2)
        yield from each(name, "key", NO_KEYS, draw)


CASES = dict(_cases())


@pytest.mark.parametrize("entry", sorted({name.split("(")[0] for name in CASES}))
def test_it_is_refused_in_a_sentence_of_our_own(entry):
    failed = [
        f"{name} {fault}" for name, call in CASES.items() if name.split("(")[0] == entry and (fault := _fault(call))
    ]
    assert failed == []


def _fault(call):
    """What is wrong with how a call is refused; nothing where it is a sentence of jaxdiff's."""
    try:
        call()
    except (TypeError, ValueError) as error:
        text, frame = str(error), traceback.extract_tb(error.__traceback__)[-1]
        if PACKAGE not in pathlib.Path(frame.filename).parents:
            return f"raises in {frame.filename}, line {frame.lineno}: {text[:100]}"
        if "\n" in text or not text.endswith(".") or len(text) > 400 or " object at 0x" in text:
            return f"is no sentence: {text}"
        return None
    except Exception as error:
        return f"raises {type(error).__name__}: {str(error)[:100]}"
    return "is accepted"
