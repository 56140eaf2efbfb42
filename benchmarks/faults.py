"""Brings about every fault that a run must survive, and counts what came of it.

    python -m benchmarks.faults [--hosts=one|several] [--only=WORD] [--write=results/faults.md]

The faults are tests (tests/); this runs those that are listed below and writes their results as a
table. A test counts as many tries as it says (the property "tried"), else one for every set of its
parameters; a try that a failing test said nothing about counts as failed. About ten minutes on two
CPU cores for one host, and half an hour for several. With --hosts the other part of a page that is
there stays as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import branchnets
from branchnets.engine.records import environment

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault and the tests that bring it about.

    Attributes:
      name: what goes wrong.
      expected: what must come of it.
      tests: of pytest, as path::name under tests/, without parameters.
      hosts: "one" or "several".
    """

    name: str
    expected: str
    tests: tuple[str, ...]
    hosts: str = "one"


@dataclasses.dataclass(frozen=True)
class Counted:
    """What came of a fault.

    Attributes:
      tried: how often it was brought about.
      held: how often what must come of it came.
      skipped: tests that could not run here.
      notes: what the tests say about it.
    """

    tried: int
    held: int
    skipped: int
    notes: tuple[str, ...]


_CHECKPOINT, _STREAM = "engine/saving/test_checkpoint.py", "data/test_stream.py"
_KILL, _DISK = "engine/test_faults_kill.py", "engine/saving/test_faults_disk.py"
_PAIR = "engine/hosts/test_faults_pair.py"

FAULTS = (
    Fault(
        "SIGKILL at a random moment, asynchronous saves included",
        "restarts from the newest whole checkpoint, loses at most one save interval (and, killed "
        "while a save is being written, the steps since it began), ends bit-identical",
        (f"{_KILL}::test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened",),
    ),
    Fault(
        "a file of the newest checkpoint missing, emptied, truncated, lengthened or altered",
        "set aside as `damaged-STEP`, said so, the step before is used",
        (f"{_CHECKPOINT}::test_any_damage_to_any_file_of_the_newest_step_is_noticed",),
    ),
    Fault(
        "the newest checkpoint's directory emptied",
        "set aside as `damaged-STEP`, said so, the step before is used",
        (f"{_CHECKPOINT}::test_an_emptied_step_is_set_aside",),
    ),
    Fault(
        "the newest checkpoint truncated, through the trainer",
        "set aside, said so; the run ends bit-identical",
        ("engine/test_train_finished.py::test_a_damaged_newest_checkpoint_is_survived",),
    ),
    Fault(
        "no checkpoint whole",
        "an error that names them; nothing starts over by itself",
        (f"{_CHECKPOINT}::test_when_no_step_is_whole_nothing_starts_over_silently",),
    ),
    Fault(
        "another config in the run directory, or a checkpoint of another network or optimiser",
        "an error with the differences; no file is changed or moved",
        (
            f"{_CHECKPOINT}::test_another_state_is_named_and_touches_nothing",
            "engine/test_train_finished.py::"
            "test_another_config_in_the_same_directory_is_refused_and_nothing_changes",
        ),
    ),
    Fault(
        "the disk full while saving",
        "one clear error, the checkpoint before stays whole; with space, ends bit-identical",
        (
            f"{_DISK}::test_a_full_disk_ends_the_run_and_with_space_it_goes_on",
            f"{_DISK}::test_a_save_that_fails_in_the_middle_leaves_the_one_before",
        ),
    ),
    Fault(
        "a worker process killed",
        "another takes its place, the batches are the same; too many stop the run with an error",
        (
            f"{_STREAM}::test_worker_processes_change_nothing_even_when_they_die",
            f"{_STREAM}::test_processes_that_die_too_often_stop_the_run",
        ),
    ),
    Fault(
        "an unreadable image, and a record with a label outside the classes",
        "stop: an error with its name; skip: named once, counted, the next one in its place",
        (
            f"{_STREAM}::test_an_example_that_cannot_be_used_stops_training_at_its_step",
            f"{_STREAM}::test_the_next_example_of_the_order_stands_for_one_that_is_skipped",
            f"{_STREAM}::test_evaluation_masks_what_is_skipped",
            "engine/test_train_streamed.py::"
            "test_images_that_cannot_be_read_end_a_run_or_are_passed_over",
        ),
    ),
    Fault(
        "NaN in one batch",
        "the update is discarded, the run stops at the next look with step and term, nothing of it "
        "is saved",
        (
            "engine/test_faults_nan.py::"
            "test_one_bad_batch_stops_the_run_before_anything_of_it_is_saved",
        ),
    ),
    Fault(
        "a read-only run directory",
        "training is refused with one line, evaluation works, no file is changed",
        (
            f"{_DISK}::test_a_read_only_directory_is_refused_and_can_be_evaluated",
            "engine/records/test_rundir.py::test_a_directory_that_cannot_be_written",
        ),
    ),
    Fault(
        "a second process on the run directory",
        "the second is refused and changes nothing, the first goes on",
        (f"{_KILL}::test_a_second_process_is_refused_and_the_first_goes_on",),
    ),
    Fault(
        "too little memory for data set, state or step",
        "refused before it is taken, with the sizes and the setting to change",
        (
            "engine/test_budget.py::"
            "test_a_run_that_cannot_fit_leaves_the_directory_to_another_config",
            "engine/test_budget.py::test_the_command_line_refuses_with_one_line",
        ),
    ),
    Fault(
        "SIGKILL in the middle of exchanging a checkpoint for one with metrics",
        "put right at the next start: one of the two is in its place and whole, nothing is left",
        (
            "engine/saving/test_checkpoint_replace.py::test_an_exchange_that_is_cut_short_is_put_right",
            "engine/saving/test_checkpoint_replace.py::"
            "test_the_old_state_comes_back_where_the_new_one_is_damaged",
        ),
    ),
    Fault(
        "SIGTERM or SIGINT to one of two processes, at a random step or while they start",
        "both save the same step and exit with 75 or 130; started again, they end bit-identical",
        (f"{_PAIR}::test_a_signal_to_one_stops_both_after_the_same_step",),
        "several",
    ),
    Fault(
        "a signal to one of two to five processes, simulated by threads",
        "all stop after the same step, or all come to the end",
        (
            "engine/hosts/test_peers.py::test_all_stop_after_the_same_step",
            "engine/hosts/test_peers.py::"
            "test_a_signal_before_the_first_step_stops_after_it_and_two_signals_are_one",
            "engine/hosts/test_peers.py::test_a_signal_at_the_end_changes_nothing_and_holds_nobody_up",
        ),
        "several",
    ),
    Fault(
        "SIGKILL of one of two processes at a random moment; once the newest checkpoint truncated "
        "besides",
        "the other one ends by itself (76, or 134 where JAX aborts it first); the whole restarts "
        "from the newest whole checkpoint, the same in both, loses at most one save interval (and "
        "the steps since the save that was being written began), ends bit-identical",
        (f"{_PAIR}::test_one_that_is_killed_ends_the_other_and_the_whole_goes_on",),
        "several",
    ),
    Fault(
        "the newest checkpoint damaged, and all of them, with two processes",
        "both restore the same older step; both refuse with an error",
        (
            "engine/saving/test_checkpoint_processes.py::"
            "test_two_processes_save_agree_on_damage_and_restore",
        ),
        "several",
    ),
    Fault(
        "an image that cannot be read, in the part of one of two processes",
        "both save the same step before it; it exits with 2 and the error, the other one with 76, "
        "naming process and error",
        (f"{_PAIR}::test_an_input_that_fails_in_one_ends_both_with_what_was_trained",),
        "several",
    ),
    Fault(
        "a checkpoint that the first of two processes cannot write",
        "it exits with 2 and the error, the other one ends as well; the checkpoint before is whole",
        (f"{_PAIR}::test_a_save_that_fails_ends_both_and_leaves_the_one_before",),
        "several",
    ),
)

_TITLES = {"one": "One host", "several": "Several hosts"}


def run(tests: Iterable[str], report: Path) -> None:
    """Runs tests and has pytest write its report; what they print goes to stderr."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "", f"--junitxml={report}"]
    command += ["-o", "junit_family=xunit1", *(f"tests/{test}" for test in tests)]
    more = {**os.environ, "BRANCHNETS_TEST_ALL_FAULTS": "1"}  # else there are fewer tries
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False, env=more)


def results(report: Path) -> dict[str, list[xml.Element]]:
    """path::name under tests/, without parameters -> the cases of pytest's report."""
    found: dict[str, list[xml.Element]] = {}
    for case in xml.parse(report).iter("testcase"):
        module = case.get("classname", "").removeprefix("tests.").replace(".", "/")
        name = case.get("name", "").partition("[")[0]
        found.setdefault(f"{module}.py::{name}", []).append(case)
    return found


def count(cases: Sequence[xml.Element]) -> Counted:
    """Adds up the cases of a fault."""
    tried = held = skipped = 0
    notes = []
    for case in cases:
        if case.find("skipped") is not None:
            skipped += 1
            continue
        said = {p.get("name"): p.get("value", "") for p in case.iter("property")}
        tries = int(said.get("tried", 1))
        tried += tries
        if case.find("failure") is None and case.find("error") is None:
            held += tries
            notes += [said["note"]] if "note" in said else []
    return Counted(tried, held, skipped, tuple(notes))


def table(faults: Iterable[Fault], found: dict[str, list[xml.Element]]) -> list[str]:
    """The rows of the table, in Markdown."""
    rows = ["| fault | what must come of it | tried | held | remarks |", "|---|---|---|---|---|"]
    for fault in faults:
        got = count([case for test in fault.tests for case in found.get(test, [])])
        missing = sum(test not in found for test in fault.tests)
        remarks = list(got.notes)
        for number, what in ((got.skipped, "could not run here"), (missing, "not there")):
            remarks += [f"{number} test(s) {what}"] if number else []
        cells = (fault.name, fault.expected, str(got.tried), str(got.held), "; ".join(remarks))
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def section(hosts: str, rows: Sequence[str], arguments: Sequence[str]) -> str:
    """A part of the results page."""
    described = environment.describe(arguments)
    source = environment.commit(Path(branchnets.__file__))
    versions = described["versions"]
    shown = ("jax", "jaxlib", "flax", "orbax-checkpoint", "numpy")
    devices = described["devices"]
    facts = [
        f"Command: `{' '.join(['python -m benchmarks.faults', *arguments])}`",
        f"Machine: {described['cpus']} cores, {devices['kind']}, {described['platform']}",
        f"Versions: Python {platform.python_version()}, "
        + ", ".join(f"{name} {versions[name]}" for name in shown if name in versions),
        f"Commit: {source['commit']}{' and changes' if source.get('dirty') else ''}",
        f"Date: {datetime.date.today()}",
    ]
    text = [f"## {_TITLES[hosts]}", "", *(f"- {fact}" for fact in facts), "", *rows]
    return "\n".join(text) + "\n"


def page(sections: Mapping[str, str], before: str = "") -> str:
    """The results page.

    Args:
      sections: by their hosts.
      before: the page that is there, whose other sections stay.
    """
    kept = {}
    for part in before.split("\n## ")[1:]:
        for hosts, title in _TITLES.items():
            if part.startswith(f"{title}\n"):
                kept[hosts] = f"## {part.rstrip()}\n"
    text = (
        "# Faults\n\n"
        "Each fault is brought about by tests, named in `benchmarks/faults.py`, which writes this\n"
        "page. Runs are compared bit by bit on one CPU device a process, state and metrics.\n"
    )
    found = {**kept, **sections}
    return "\n".join([text, *(found[hosts] for hosts in _TITLES if hosts in found)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; 1 if a fault was not survived, 2 on bad input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="WORD", default="", help="faults whose name has this")
    parser.add_argument("--write", metavar="FILE", type=Path, help="the page; default: print it")
    parser.add_argument("--hosts", choices=tuple(_TITLES), help="the faults of one part alone")
    options = parser.parse_args(given)
    faults = [
        fault
        for fault in FAULTS
        if options.only.lower() in fault.name.lower() and options.hosts in (None, fault.hosts)
    ]
    if not faults:
        parser.exit(2, f"error: no such fault has {options.only!r} in its name\n")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        run([test for fault in faults for test in fault.tests], report)
        if not report.exists():
            parser.exit(2, "error: pytest wrote no report; see above\n")
        found = results(report)
    sections = {
        hosts: section(hosts, table(chosen, found), given)
        for hosts in _TITLES
        if (chosen := [fault for fault in faults if fault.hosts == hosts])
    }
    there = options.write is not None and options.write.exists()
    text = page(sections, options.write.read_text() if there else "")
    if options.write:
        options.write.write_text(text)
    else:
        print(text, end="")
    counts = [count([c for test in fault.tests for c in found.get(test, [])]) for fault in faults]
    complete = all(test in found for fault in faults for test in fault.tests)
    return 0 if complete and all(c.tried == c.held for c in counts) else 1


if __name__ == "__main__":
    sys.exit(main())
