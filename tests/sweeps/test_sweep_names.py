"""Swept values as text."""

import pytest

from branchnets.errors import ConfigError
from branchnets.sweeps import names


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1,2,4", ["1", "2", "4"]),
        (" 0 , 0.05", ["0", "0.05"]),
        ("sum", ["sum"]),
        ('("a.txt",),("b.txt", "c.txt")', ['("a.txt",)', '("b.txt", "c.txt")']),
        ("((10,),(5,)),((10,),(3,))", ["((10,),(5,))", "((10,),(3,))"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ('("a)b",),()', ['("a)b",)', "()"]),
    ],
)
def test_top_level_commas_split(text, parts):
    assert names.split(text) == parts


@pytest.mark.parametrize("text", ["", "1,,2", "1,", '("a",', "1)", "(1]", "'a"])
def test_what_is_not_whole_is_refused(text):
    with pytest.raises(ConfigError):
        names.split(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (None, "none"), (0.05, "0.05"), (1.0, "1"), ((), "none"), (("a", 2), "a+2")],
)
def test_labels(value, text):
    assert names.label(value) == text


def test_words_are_read_back_by_the_command_line():
    assert [names.word(v) for v in (False, 0.1, "sum", ("a.txt",))] == [
        "false", "0.1", "sum", "('a.txt',)",
    ]  # fmt: skip


def test_directories_are_readable():
    assert names.directory({"mu": 1.0, "p_drop": 0.05, "seed": 0}) == "mu=1,p_drop=0.05,seed=0"
    assert names.directory({}) == "base"
    assert names.directory({"schemes": ("a.txt", "b.txt")}) == "schemes=a.txt+b.txt"


def test_no_two_values_share_a_directory():
    values = [
        ("a/s.txt",), ("b/s.txt",), ("s.txt",), ("s.txt", "s.txt"), ("s.txt+s.txt",), ("s,txt",),
        ("s txt",), ("../s.txt",), ("x" * 300,), ("x" * 301,),
    ]  # fmt: skip
    found = [names.directory({"schemes": value, "seed": 0}) for value in values]
    assert len(set(found)) == len(values)
    assert all("/" not in name and len(name) < 200 for name in found)
    assert found[0].startswith("schemes=s.txt-")
