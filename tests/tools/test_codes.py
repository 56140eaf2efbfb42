"""The command line that searches for coding schemes."""

import io

import pytest

from branchnets.families.coded import codes
from branchnets.families.coded.search.bar import Bar
from branchnets.tools.codes import main


def args(classes, branches, active, *more):
    return [f"--classes={classes}", f"--branches={branches}", f"--active={active}", *more]


def failure(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_figures_and_file(capsys, tmp_path):
    path = tmp_path / "codes.txt"
    assert main(args(100, 20, 8, f"--out={path}")) == 0
    out = capsys.readouterr().out
    assert "H_min        8" in out
    assert "column sums  40 to 40 (all 20 branches)" in out
    assert "at most 153 words are 8 apart (linear programming), 142 (Johnson)" in out
    assert "at most 21 words are 10 apart" in out
    assert "H_min 8 is the best there can be: 10 is impossible for 100 classes" in out
    pairs = out.split("distances")[1].split("(distance")[0].strip().split(", ")
    assert sum(int(pair.split(": ")[1]) for pair in pairs) == 100 * 99 // 2
    scheme = codes.load_scheme(str(path)).require(100, 20, 8)
    assert scheme.min_distance == 8 and (scheme.column_sums == 40).all()
    assert f"Wrote {path}" in out and [p.name for p in tmp_path.iterdir()] == ["codes.txt"]


def test_the_same_seed_writes_the_same_file(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for path in (a, b):
        main(args(25, 12, 5, "--seed=3", f"--out={path}"))
    assert a.read_text() == b.read_text()


def test_other_ways_to_be_the_best(capsys):
    main(args(1, 10, 5))
    assert "none: one class" in capsys.readouterr().out
    main(args(2, 5, 2))
    assert "no two words of this weight are 6 apart" in capsys.readouterr().out
    main(args(100, 20, 8, "--min_distance=3"))
    printed = capsys.readouterr()
    assert "even distance apart; looking for 4" in printed.err
    assert "8 is not ruled out, not looked for" in printed.out
    assert "columns" not in printed.err  # no bar lines in so short a time
    assert "--out=FILE" in printed.out


def test_a_distance_that_is_not_reached(capsys, tmp_path):
    path = tmp_path / "codes.txt"
    status = main(args(1000, 24, 12, "--min_distance=8", "--budget=0.1", f"--out={path}"))
    printed = capsys.readouterr()
    assert status == 1 and "8 was not reached" in printed.err
    assert "8 is not ruled out, the search ended first" in printed.out
    assert codes.load_scheme(str(path)).require(1000, 24, 12).min_distance < 8


def test_impossible_requests(capsys):
    error = failure(capsys, *args(10, 10, 5, "--min_distance=6"))
    assert error.startswith("error: ") and "minimum distance of 4, or 6 classes" in error
    assert "252 classes" in failure(capsys, *args(300, 10, 5))
    assert "nearest request is 9 active" in failure(capsys, *args(3, 10, 10))
    assert "--budget" in failure(capsys, *args(3, 10, 5, "--budget=0"))
    assert "--budget" in failure(capsys, *args(3, 10, 5, "--budget=nan"))
    assert failure(capsys, *args(3, 10, "x")).startswith("error: ")
    assert "--seed" in failure(capsys, *args(3, 10, 5, "--seed=-1"))
    assert "--classes" in failure(capsys, "--branches=3")


def test_the_file_is_looked_at_before_the_search(capsys, tmp_path, monkeypatch):
    from branchnets.tools import codes as tool

    path = tmp_path / "codes.txt"
    path.write_text("mine\n")
    with monkeypatch.context() as patch:
        patch.setattr(tool, "find", lambda *a, **k: pytest.fail("searched"))
        assert "--force overwrites" in failure(capsys, *args(4, 6, 3, f"--out={path}"))
        assert "is a folder" in failure(capsys, *args(4, 6, 3, f"--out={tmp_path}"))
        missing = tmp_path / "none" / "codes.txt"
        assert "there is no folder" in failure(capsys, *args(4, 6, 3, f"--out={missing}"))
        patch.setattr("tempfile.TemporaryFile", _refused)
        other = tmp_path / "other.txt"
        assert "Permission denied" in failure(capsys, *args(4, 6, 3, f"--out={other}"))
    assert path.read_text() == "mine\n"
    assert main(args(4, 6, 3, f"--out={path}", "--force")) == 0
    assert len(path.read_text().splitlines()) == 4


def _refused(**kwargs):
    raise PermissionError(13, "Permission denied")


def test_bar():
    now = iter([0.0, 30.0])
    bar = Bar(60, stream=io.StringIO(), clock=lambda: next(now))
    bar.doing("linear codes")
    bar.best("H_min 8, columns within 0")
    assert bar.line() == (
        "[##########----------] 30 of 60 s · linear codes · best: H_min 8, columns within 0"
    )
    stream = io.StringIO()
    with Bar(60, stream=stream, every=0.01) as bar:
        while not stream.getvalue():
            pass
    assert "starting" in stream.getvalue()


def test_stopped_before_there_is_a_scheme(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("branchnets.families.coded.search.bounds.largest_distance", interrupted)
    with pytest.raises(SystemExit) as exit_:
        main(args(10, 10, 5))
    assert exit_.value.code == 130
    assert capsys.readouterr().err.endswith("stopped.\n")
