"""Records of benchmarks: what is written, what is refused, and that every kept record has the keys of its schema."""

import json

import pytest

from benchmarks.harness import places, records

KEPT = sorted(places.RESULTS.glob("*.json"))
ENVIRONMENT = {"date", "commit", "versions", "platform", "device", "devices", "cpu", "cores", "load"}
GOOD = {"schema": 1, "question": "How many?", "verdict": "Few.", "environment": {"cpu": "one"}, "rows": [{"d": 2}]}


def test_a_record_holds_schema_question_verdict_environment_and_rows(tmp_path):
    rows = [{"d": 2, "median_ms": 0.5}, {"d": 4, "median_ms": 1.5}]
    path = records.write_rows("name", rows, "How many?", "Few.", {"cpu": "one"}, tmp_path / "record.json")
    assert json.loads(path.read_text()) == GOOD | {"rows": rows}
    assert path.read_text().splitlines()[1] == '  "schema": 1,'
    assert '    {"d": 2, "median_ms": 0.5},' in path.read_text().splitlines()
    assert records.read(path)["rows"] == rows


def test_records_are_named_after_benchmark_and_platform(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RESULTS", tmp_path)
    monkeypatch.setattr(records, "platform_slug", lambda: "nvidia-h200")
    assert records.write_rows("speed", [], "How fast?", "Fast.", {"cpu": "one"}) == tmp_path / "speed-nvidia-h200.json"


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_a_record_without_a_known_schema_version_is_refused(tmp_path, version):
    record = {key: value for key, value in (GOOD | {"schema": version}).items() if value is not None}
    (tmp_path / "old.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=rf"old\.json has the schema version {version!r}, and 1 is known: run"):
        records.read(tmp_path / "old.json")


@pytest.mark.parametrize("record", [GOOD | {"seed": 0}, {key: GOOD[key] for key in GOOD if key != "verdict"}])
def test_a_record_with_other_keys_is_refused(tmp_path, record):
    (tmp_path / "other.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"other\.json has the keys schema, question"):
        records.read(tmp_path / "other.json")


def test_there_is_a_record_of_every_benchmark_that_writes_one():
    scripts = {path.stem for path in (places.ROOT / "benchmarks").glob("*.py")} - {"__init__", "__main__"}
    assert {path.stem.removesuffix("-cpu") for path in KEPT} == scripts - {"noise_words"}  # which feeds dieharder


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_every_kept_record_is_readable_and_says_where_it_was_made(path):
    record = records.read(path)
    assert record["question"].endswith("?")
    assert record["verdict"].endswith(".")
    about = record["environment"]
    assert set(about) - {"seed", "XLA_FLAGS"} == ENVIRONMENT
    assert about["versions"].keys() >= {"python", "jax", "jaxlib", "numpy", "jaxdiff"}
    assert record["rows"]
    assert all(isinstance(row, dict) and row for row in record["rows"])
