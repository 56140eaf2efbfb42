"""Flags from options, overrides, progress and messages."""

import io
import sys

import pytest

from branchnets.errors import ConfigError, UserError
from branchnets.families.study import Option
from branchnets.tools import common

OPTIONS = (
    Option("draws", 5, "How often, 100% sure."),
    Option("rate", 0.5, "A rate."),
    Option("classes", None, "Which.", flag="class", many=True, required=True),
    Option("sizes", (1, 2), "Sizes.", many=True),
    Option("fast", False, "Quickly."),
    Option("note", None, "A text."),
)


def _parse(*words, options=OPTIONS):
    parser = common.Parser(prog="tool")
    common.add_options(parser, options)
    return common.option_values(parser.parse_all(words), options)


def test_options_become_flags_of_their_types():
    assert _parse("--class=a", "--class", "b", "--draws=7", "--fast", "--sizes=3") == {
        "draws": 7,
        "rate": 0.5,
        "classes": ("a", "b"),
        "sizes": (3,),
        "fast": True,
        "note": None,
    }
    assert _parse("--class=a", "--no-fast", "--note=x")["sizes"] == (1, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--class"),
        (("--class=a", "--draws=many"), "--draws: invalid int value"),
        (("--class=a", "--drows=3"), "Did you mean '--draws'"),
        (("--class=a", "stray"), "unknown argument 'stray'"),
    ],
)
def test_a_bad_flag_is_a_message_and_status_2(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        _parse(*words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("error: ") and message in error and "Traceback" not in error


def test_the_help_says_defaults(capsys):
    with pytest.raises(SystemExit):
        _parse("--help")
    text = capsys.readouterr().out
    assert "How often, 100% sure. (default: 5)" in " ".join(text.split())
    assert "--class CLASSES" in text and "--no-fast" in text


def test_options_from_python_are_checked_and_completed():
    values = common.complete_options({"classes": "a", "draws": 2}, OPTIONS)
    assert values["classes"] == ("a",) and values["draws"] == 2 and values["rate"] == 0.5
    with pytest.raises(ConfigError, match="unknown option 'drows'. Did you mean 'draws'"):
        common.complete_options({"classes": "a", "drows": 2}, OPTIONS)
    with pytest.raises(ConfigError, match="'classes' must be given"):
        common.complete_options({"draws": 2}, OPTIONS)


def test_values_are_checked_where_they_are_given():
    def check(value):
        if value < 1:
            raise UserError(f"draws from 1, not {value}.")

    options = (Option("draws", 0, "How often.", check=check),)
    assert common.complete_options({}, options) == {"draws": 0}
    assert _parse("--draws=3", options=options) == {"draws": 3}
    for refused in (
        lambda: _parse("--draws=-1", options=options),
        lambda: common.complete_options({"draws": 0}, options),
    ):
        with pytest.raises(UserError, match="draws from 1"):
            refused()


def test_words_may_stand_between_flags(capsys):
    parser = common.Parser(prog="tool")
    parser.add_argument("folder")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--json", action="store_true")
    found = parser.parse_all(["net", "a.png", "--json", "b.png"])
    assert (found.folder, found.images, found.json) == ("net", ["a.png", "b.png"], True)
    assert parser.parse_all(["net", "--", "--a.png"]).images == ["--a.png"]
    with pytest.raises(SystemExit):
        parser.parse_all(["net", "a.png", "--jsn", "b.png"])
    assert "unknown argument '--jsn'. Did you mean '--json'?" in capsys.readouterr().err


def test_a_shared_option_is_one_flag_and_two_of_one_name_are_a_mistake():
    shared = Option("draws", 5, "How often.")
    assert _parse("--draws=1", options=(shared, shared)) == {"draws": 1}
    with pytest.raises(ValueError, match="two different options"):
        common.merge_options((shared, Option("draws", 6, "How often.")))


def test_overrides_are_told_from_flags():
    words = ["--workdir=x", "--config.seed=1", "--noconfig.model.normalize", "--config=f.py"]
    overrides, rest = common.split_overrides(words)
    assert overrides == ["--config.seed=1", "--noconfig.model.normalize"]
    assert rest == ["--workdir=x", "--config=f.py"]


def test_progress_off_a_terminal_is_lines(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(common, "LINE_SECONDS", 0.0)
    assert list(common.track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    text = stream.getvalue()
    assert "\r" not in text
    assert all(line.startswith("letters") for line in text.splitlines())
    assert "3/3" in text.splitlines()[-1]


def test_what_is_quick_leaves_no_lines_off_a_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(common.track([1, 2], "numbers")) == [1, 2]
    assert stream.getvalue() == ""


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(common.track([1, 2], "numbers")) == [1, 2]
    assert "\rnumbers" in sys.stderr.getvalue()


def test_a_user_error_is_a_message_and_status_2(capsys):
    def fail():
        raise UserError("do this instead.")

    assert common.guarded(fail) == 2
    assert capsys.readouterr().err == "error: do this instead.\n"
    assert common.guarded(lambda: None) == 0

    def interrupt():
        raise KeyboardInterrupt

    assert common.guarded(interrupt) == 130 and capsys.readouterr().err == "stopped.\n"
    with pytest.raises(ZeroDivisionError):  # a mistake of ours is not dressed up as the user's
        common.guarded(lambda: 1 / 0)
