"""Files that are whole or absent."""

import json
import pathlib

import pytest

from jaxdiff import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_with_the_folders_above_it(tmp_path):
    path = tmp_path / "a" / "b" / "result.txt"
    with files.written(path) as draft:
        draft.write_text("half")
        assert not path.exists()
        draft.write_text("whole")
    assert path.read_text() == "whole"
    assert names(path.parent) == ["result.txt"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with files.written(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("name", ["run", "replaced"])
def test_a_folder_is_replaced_with_all_its_files(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "old").write_text("1")
    with files.written(str(folder)) as draft:
        draft.mkdir()
        (draft / "new").write_text("2")
    assert names(folder) == ["new"]
    assert names(tmp_path) == [name]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def fail():
        with files.written(path) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_an_old_folder_survives_when_nothing_was_written(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "old").write_text("1")
    with pytest.raises(FileNotFoundError), files.written(folder):
        pass
    assert names(folder) == ["old"]
    assert names(tmp_path) == ["run"]


def test_a_record_is_read_back_as_it_was(tmp_path):
    record = {"kl": 0.1, "unknown": None, "name": "Ω"}
    files.write_json(tmp_path / "record.json", record)
    text = (tmp_path / "record.json").read_text(encoding="utf-8")
    assert json.loads(text) == record
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_record_with_nan_is_refused_and_the_old_one_kept(tmp_path, value):
    path = tmp_path / "record.json"
    files.write_json(path, {"kl": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"kl": value})
    assert json.loads(path.read_text()) == {"kl": 1.0}
    assert names(tmp_path) == ["record.json"]


def test_the_old_file_stands_when_the_new_one_cannot_be_put_in_place(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError("disk gone")

    path = tmp_path / "result.txt"
    path.write_text("old")
    monkeypatch.setattr(pathlib.Path, "replace", refuse)
    with pytest.raises(OSError, match="disk gone"), files.written(path) as draft:
        draft.write_text("new")
    assert path.read_text() == "old"


def test_a_folder_that_cannot_be_made_is_refused_by_what_is_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    files.check_folder(tmp_path / "a" / "b")
    assert names(tmp_path) == ["file"]
    with pytest.raises(OSError, match=rf"{tmp_path}/file is a file"):
        files.check_folder(tmp_path / "file" / "run")
