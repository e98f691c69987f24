"""Sweeps: what the function gets, how often it is compiled and run, what is kept, and who is refused."""

import errno
import itertools
import json
import re
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import noise, sweeps
from jaxdiff.app.cli import main

DIMS, SEEDS, SCALES = (1, 3, 8), (0, 5), (0.5, 2.0)
PARTICLES = 7


def masked(mask, key, scale):
    x = scale * noise.normal(key, jnp.arange(PARTICLES), 0, mask.shape[0], jnp.float64)
    return {"square": jnp.sum(jnp.where(mask, x**2, 0)), "width": mask.shape[0]}


# A coordinate's draw does not depend on how many there are: the same sum at the width d itself, without batch or mask.
def square(dim, seed, scale):
    key = jax.random.fold_in(jax.random.key(seed), dim)
    return float(np.sum(np.square(scale * np.asarray(noise.normal(key, np.arange(PARTICLES), 0, dim, jnp.float64)))))


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_a_traced_function_sees_the_coordinates_that_exist_and_the_key_of_its_row(batch):
    rows = sweeps.run(masked, dims=DIMS, seeds=SEEDS, scale=SCALES, batch=batch)
    cells = [(row["dim"], row["scale"], row["seed"]) for row in rows]
    assert cells == list(itertools.product(DIMS, SCALES, SEEDS))
    for row in rows:
        assert row["width"] == max(DIMS)
        assert row["square"] == pytest.approx(square(row["dim"], row["seed"], row["scale"]), rel=1e-13)


def test_rows_are_tidy_and_made_of_pythons_own_scalars():
    (row,) = sweeps.run(masked, dims=[np.int64(2)], seeds=np.arange(1), scale=[np.float32(1)])
    assert list(row)[:3] == ["dim", "scale", "seed"]
    assert [type(row[name]) for name in ("dim", "seed", "square", "width")] == [int, int, float, int]
    json.dumps(row)


def test_one_compilation_serves_all_dimensions_seeds_and_numbers():
    traced = []

    def counted(mask, seed, kernel, scale):
        traced.append(kernel)
        return {"value": mask.sum().astype(float) * kernel(scale) + seed.astype(float)}

    rows = sweeps.run(counted, dims=range(1, 6), seeds=range(3), kernel=[jnp.sin, jnp.cos], scale=[1, 0.5], batch=4)
    assert len(rows) == 60
    assert traced == [jnp.sin, jnp.cos]
    for row in rows:
        f = {"sin": np.sin, "cos": np.cos}[row["kernel"]]
        assert row["value"] == pytest.approx(row["dim"] * f(row["scale"]) + row["seed"], rel=1e-14)


def test_what_is_no_sequence_of_numbers_is_concrete():
    def steps(mask, n_steps, exact, order):
        assert exact is True
        return sum(order for _ in range(n_steps)) * mask.sum()

    rows = sweeps.run(steps, dims=[2], n_steps=3, exact=True, order={"first": 1, "second": 2})
    assert rows == [
        {"dim": 2, "n_steps": 3, "exact": True, "order": "first", "value": 6},
        {"dim": 2, "n_steps": 3, "exact": True, "order": "second", "value": 12},
    ]


def test_a_function_of_dim_is_called_with_concrete_values():
    calls = []

    def called(dim, key, law, n=4):
        calls.append((dim, law, n))
        return {"law_is": law, "draw": jax.random.normal(key, (dim,), jnp.float64)[-1]}

    rows = sweeps.run(called, dims=[3, 1], seeds=[7], law=("a", None))
    assert calls == [(3, "a", 4), (3, None, 4), (1, "a", 4), (1, None, 4)]
    expected = jax.random.normal(jax.random.fold_in(jax.random.key(7), 3), (3,), jnp.float64)[-1]
    assert rows[0] == {"dim": 3, "law": "a", "seed": 7, "law_is": "a", "draw": float(expected)}


def test_dimensions_and_seeds_are_left_out_where_the_function_takes_none():
    assert sweeps.run(lambda n: n * n, n=[2, 3]) == [{"n": 2, "value": 4}, {"n": 3, "value": 9}]


def test_a_sweep_goes_on_where_it_was_interrupted(tmp_path):
    path, calls = tmp_path / "more" / "rows.jsonl", []

    def fragile(dim, seed):
        calls.append((dim, seed))
        if calls == [(2, 0), (2, 1), (4, 0)]:
            raise KeyboardInterrupt
        return {"sum": dim + seed}

    options = {"dims": [2, 4], "seeds": [0, 1], "resume": path}
    with pytest.raises(KeyboardInterrupt):
        sweeps.run(fragile, **options)
    assert [json.loads(line)["sum"] for line in path.read_text().splitlines()] == [2, 3]
    with path.open("a") as file:
        file.write('{"dim": 4, "se')  # a line that was cut off
    rows = sweeps.run(fragile, **options)
    assert calls[3:] == [(4, 0), (4, 1)]
    assert [row["sum"] for row in rows] == [2, 3, 4, 5]
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    assert sweeps.run(fragile, **options) == rows
    assert len(calls) == 5


def test_a_sweep_that_grows_keeps_the_rows_it_has(tmp_path):
    path = tmp_path / "rows.jsonl"
    first = sweeps.run(masked, dims=DIMS, seeds=SEEDS, scale=[0.5], resume=path)
    both = sweeps.run(masked, dims=DIMS, seeds=SEEDS, scale=[0.5, 1.0], resume=path)
    assert [row for row in both if row["scale"] == 0.5] == first
    assert len(path.read_text().splitlines()) == 12


def test_a_second_sweep_on_a_file_ends_at_once_and_the_first_goes_on(tmp_path):
    path, told = tmp_path / "rows.jsonl", []

    def again(dim):
        with pytest.raises(ValueError, match=re.escape(f"another sweep is writing to {path}: wait until it ends")):
            sweeps.run(lambda dim: told.append(dim), dims=[9], resume=path)
        return dim

    rows = sweeps.run(again, dims=[1, 2], resume=path)
    assert told == []
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    assert [row["value"] for row in rows] == [1, 2]
    assert len(sweeps.run(lambda dim: dim, dims=[1, 2, 3], resume=path)) == 3  # the lock went with the sweep


def test_a_sweep_that_fails_lets_go_of_its_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ZeroDivisionError):
        sweeps.run(lambda dim: 1 / (dim - 2), dims=[1, 2], resume=path)
    assert [row["value"] for row in sweeps.run(lambda dim: dim / 4, dims=[1, 2], resume=path)] == [-1, 0.5]


def test_a_file_that_has_all_rows_need_not_be_writable(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    rows = sweeps.run(lambda dim: dim, dims=[1, 2], resume=path)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # who runs as root may write anywhere
    path.chmod(0o444)
    assert sweeps.run(lambda dim: dim, dims=[1, 2], resume=path) == rows


def test_a_row_that_does_not_fit_on_the_disk_is_told_by_the_name_of_the_file(tmp_path):
    path, options = tmp_path / "rows.jsonl", {"dims": [1, 2, 3]}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))  # a row has 23 bytes
    try:
        with pytest.raises(OSError, match=re.escape(f"{path} cannot be written: File too large.")) as caught:
            sweeps.run(lambda dim: dim, resume=path, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert sweeps.run(lambda dim: dim, resume=path, **options) == sweeps.run(lambda dim: dim, **options)
    assert [json.loads(line)["value"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_the_file_of_another_sweep_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    sweeps.run(lambda dim, n: n, dims=[1], n=2, resume=path)
    with pytest.raises(ValueError, match=r"holds another sweep, with the columns dim, n, value"):
        sweeps.run(lambda dim, m: m, dims=[1], m=2, resume=path)


def test_a_file_with_a_setting_more_is_another_sweep(tmp_path):
    path = tmp_path / "rows.jsonl"
    multiple = lambda dim, n=4: n * dim
    sweeps.run(multiple, dims=[1], n=2, resume=path)
    with pytest.raises(ValueError, match="another sweep"):
        sweeps.run(multiple, dims=[1], resume=path)


def test_whole_numbers_that_would_wrap_are_refused_and_seeds_do_not():
    (row,) = sweeps.run(lambda mask, seed: seed, dims=[1], seeds=[2**32 - 1])
    assert row["value"] == 2**32 - 1
    with jax.enable_x64(False), pytest.raises(ValueError, match="n = 10000000000 does not fit into 32 bits"):
        sweeps.run(lambda mask, n: n, dims=[1], n=[3, 10**10])


def test_means_over_seeds_have_their_standard_errors():
    rows = sweeps.run(lambda dim, seed, n: {"s": seed**2 * n, "name": "x"}, dims=[1, 2], seeds=[0, 1, 5], n=[1, 3])
    means = sweeps.over_seeds(rows)
    assert [(row["dim"], row["n"], row["seeds"]) for row in means] == [(1, 1, 3), (1, 3, 3), (2, 1, 3), (2, 3, 3)]
    # 0, 1, 25: mean 26/3; squared deviations 676/9 + 529/9 + 2401/9 = 3606/9; over 2 and 3: sqrt(601/9)
    assert means[1]["s"] == pytest.approx(26, rel=1e-14)
    assert means[1]["s_error"] == pytest.approx(np.sqrt(601), rel=1e-14)
    assert "name" not in means[0]
    assert sweeps.over_seeds(rows[:1])[0]["s_error"] is None


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: sweeps.run(lambda dim, n: n, dims=[1]), "needs n, which is not given"),
        (lambda: sweeps.run(lambda dim: 1, dims=[1], n=3), "does not take n"),
        (lambda: sweeps.run(lambda dim: 1), "takes dim: pass dims"),
        (lambda: sweeps.run(lambda mask, key: 1, dims=[1]), "takes key: pass seeds"),
        (lambda: sweeps.run(lambda n: 1, dims=[1], n=1), "neither dim nor mask"),
        (lambda: sweeps.run(lambda dim: 1, dims=[1], seeds=[1]), "neither key nor seed"),
        (lambda: sweeps.run(lambda dim, mask: 1, dims=[1]), "dim and mask"),
        (lambda: sweeps.run(lambda dim: 1, dims=[1], key=3), "itself makes key"),
        (lambda: sweeps.run(lambda dim: 1, dims=[]), "dims is empty"),
        (lambda: sweeps.run(lambda dim: 1, dims=[0]), "dims must be whole numbers from 1"),
        (lambda: sweeps.run(lambda dim: 1, dims=[1.5]), "one is 1.5"),
        (lambda: sweeps.run(lambda dim, seed: 1, dims=[1], seeds=[2**32]), "seeds must be whole numbers from 0"),
        (lambda: sweeps.run(lambda dim: 1, dims=[2, 2]), "dims holds 2 more than once"),
        (lambda: sweeps.run(lambda n: 1, n=["a", "a"]), 'n holds "a" more than once'),
        (lambda: sweeps.run(lambda n: 1, n=[object()]), "pass n as a mapping"),
        (lambda: sweeps.run(lambda dim: [dim], dims=[1]), r"value has shape \(1,\)"),
        (lambda: sweeps.run(lambda mask: mask, dims=[3]), r"value has shape \(3,\)"),
        (lambda: sweeps.run(lambda n: {"n": 1}, n=1), "returns n, the name of a column"),
        (lambda: sweeps.run(lambda mask: 1, dims=[1], batch=0), "batch = 0"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_with_the_remedy(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_the_command_line_sweeps_a_function_of_a_file(tmp_path, capsys):
    path = tmp_path / "halves.py"
    path.write_text("def half(dim, seed, by, name):\n    return {'half': dim / by + seed, 'was': name}\n")
    out = tmp_path / "rows.jsonl"
    sweep = ["sweep", f"{path}:half", "--dims", "2", "4", "--seeds", "2", "--set", "by=2,0.5", "--set", "name=x"]
    assert main([*sweep, "--json", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["half"] for row in rows] == [1, 2, 4, 5, 2, 3, 8, 9]
    assert rows[0] == {"dim": 2, "by": 2, "name": "x", "seed": 0, "half": 1, "was": "x"}
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    assert main(sweep) == 0
    table = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in table[2].split("|")[1:-1]] == ["2", "2", "x", "2", "1.5", "0.5"]


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ("no_such_module:f", "no module no_such_module"),
        ("json:no_such_function", "json has no function no_such_function"),
        ("json", "FILE.py:NAME or MODULE:NAME"),
        ("nowhere.py:f", "nowhere.py"),
        ("json:dumps --set n", "NAME=VALUE"),
        ("json:dumps --seeds 0", "1 at least"),
    ],
)
def test_a_command_that_names_nothing_to_sweep_exits_with_2(argv, named, capsys):
    assert main(["sweep", *argv.split()]) == 2
    assert named in capsys.readouterr().err
