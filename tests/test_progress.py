"""The bar passes items through whatever is installed."""

import sys

import pytest

from jaxdiff.progress import bar


def test_items_pass_in_order_and_the_bar_is_on_standard_error_alone(capsys):
    assert list(bar(range(5), "climbing")) == [0, 1, 2, 3, 4]
    out, err = capsys.readouterr()
    assert out == ""
    assert "climbing" in err
    assert "5/5" in err


def test_a_generator_with_a_total_counts_up_to_it(capsys):
    assert list(bar((i * i for i in range(3)), "squares", total=3)) == [0, 1, 4]
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize("installed", [True, False])
def test_a_disabled_bar_is_silent(monkeypatch, capsys, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    items = iter([3, 1, 2])
    assert list(bar(items, "nothing", enabled=False)) == [3, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_without_tqdm_items_pass_through_silently(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)  # import tqdm now raises ImportError
    assert list(bar((c for c in "abc"), "letters", total=3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
