"""The suite of benchmarks: what it runs, what it keeps, what its page says."""

from __future__ import annotations

import json
import signal
import sys

import pytest

import branchnets
from benchmarks import __main__ as suite
from benchmarks import inference, peaks, variants
from benchmarks.suite import machine, page, plan, run
from benchmarks.suite.store import Record, Store

HERE = {"device": "NVIDIA H100 80GB HBM3", "devices": 1, "cores": 2, "python": "3.x", "jax": "1.0"}
RUN = {
    "commit": "0123456789", "dirty": False, "date": "2026-01-02", "command": "python -m x",
    "machine": HERE,
}  # fmt: skip


def test_every_registered_model_is_measured_and_nothing_else():
    words = [word for group in plan.GROUPS for word in group.models]
    assert {variants.parse(word).name for word in words} == set(branchnets.list_models())
    assert len(words) == len(set(words))


@pytest.mark.parametrize("scale", [plan.Scale(), plan.Scale(quick=True)])
def test_jobs_have_names_of_their_own(scale):
    jobs = list(plan.jobs(scale, plan.PARTS))
    names = [(job.part, job.name) for job in jobs]
    assert len(names) == len(set(names))
    assert {job.part for job in jobs} == set(plan.PARTS)
    assert len(jobs) > 30 or scale.quick
    assert [job.part for job in plan.jobs(scale, ("input",))][0] == "input"


def test_an_accelerator_has_its_own_batches():
    job = next(iter(plan.jobs(plan.Scale(accelerator=True, dtype="bfloat16"), ("steps",))))
    assert "--batch=1024" in job.arguments and "--dtype=bfloat16" in job.arguments
    torch = next(iter(plan.jobs(plan.Scale(accelerator=True, dtype="bfloat16"), ("torch",))))
    assert {"--gpu", "--dtype=bfloat16", "--batch=512"} <= set(torch.arguments)


def test_what_takes_turns_with_pytorch_is_not_measured_alone_as_well():
    alone = [job.name for job in plan.jobs(plan.Scale(), ("steps",))]
    beside = [job.name for job in plan.jobs(plan.Scale(), ("steps", "torch"))]
    assert {group.name for group in plan.GROUPS if group.torch} == set(alone) - set(beside)
    assert [name for name in beside if name.startswith("steps: ")] == [
        "steps: resnext29_10x11d", "steps: resnext29_20x6d", "steps: resnext50_32x4d",
    ]  # fmt: skip


@pytest.fixture
def processes(monkeypatch):
    """Stands in for the benchmarks: a job's first argument is a program; returns what ran."""
    ran = []
    original = run.finish

    def finish(command, limit):
        ran.append(command[3])
        return original([sys.executable, "-c", command[3]], limit)

    monkeypatch.setattr(run, "finish", finish)
    return ran


def job(program, name="a", part="steps"):
    return plan.Job(part, name, "train_step", (program,))


def test_what_has_a_result_of_this_commit_is_not_run_again(processes, tmp_path):
    store, program = Store(tmp_path), "print('{\"x\": 1}')"
    jobs = [job(program), job("raise SystemExit(3)", "b")]
    assert run.run(jobs, store, RUN, limit=60) == 1
    found = store.read("steps")
    assert found["a"].document == {"x": 1} and found["a"].run == RUN
    assert found["b"].reason == "exit status 3" and found["b"].document == {}
    assert found["a"].command.startswith("python -m benchmarks.train_step ")

    # The one that failed is tried again, and the suite fails while it does.
    assert run.run(jobs, store, RUN, limit=60) == 1
    assert processes == [program, "raise SystemExit(3)", "raise SystemExit(3)"]
    jobs = jobs[:1]
    assert run.run(jobs, store, RUN, limit=60) == 0 and len(processes) == 3
    run.run(jobs, store, RUN, limit=60, again=True)
    run.run(jobs, store, {**RUN, "commit": "another"}, limit=60)
    run.run([job(program + "#")], store, {**RUN, "commit": "another"}, limit=60)
    run.run([job(program)], store, {**RUN, "dirty": True}, limit=60)
    assert len(processes) == 7 and list(store.read("steps")) == ["a", "b"]


def test_results_are_of_one_machine(processes, tmp_path):
    store, program = Store(tmp_path), "print('{}')"
    run.run([job(program)], store, RUN, limit=60)
    tuned = {**RUN, "machine": {**HERE, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}}
    assert run.elsewhere(store, tuned) is None
    run.run([job(program)], store, tuned, limit=60)
    run.run([job(program)], store, tuned, limit=60)
    assert len(processes) == 2 and store.read("steps")["a"].run == tuned
    # PyTorch's version is of what is measured beside it.
    torch = {**RUN, "machine": {**HERE, "torch": "2.x"}}
    beside = job(program, part="torch")
    run.run([beside, job(program)], store, torch, limit=60, torch_python="p")
    run.run([beside, job(program)], store, torch, limit=60, torch_python="p")
    assert len(processes) == 4 and store.read("torch")["a"].command.endswith("--torch-python=PATH")
    run.run([job(program)], store, RUN, limit=60)
    run.run([beside], store, {**RUN, "machine": {**HERE, "torch": "3.x"}}, limit=60)
    assert len(processes) == 5
    other = {**RUN, "machine": {**HERE, "device": "TPU v4"}}
    assert run.elsewhere(store, other) == "NVIDIA H100 80GB HBM3, 2 cores"


def test_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    flag = "--xla_backend_optimization_level=0"
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={tmp_path} {flag} --xla_dump_max_hlo_modules=1")
    found = machine.describe()
    assert found["device"] != "cpu" and found["cores"] >= 1 and {"python", "jax"} <= set(found)
    assert "GLIBC_TUNABLES glibc.malloc.hugetlb=1" in machine.versions(found)
    assert found["XLA_FLAGS"] == f"{flag} --xla_dump_max_hlo_modules=1"  # no place of this machine


@pytest.mark.parametrize(
    ("program", "limit", "reason"),
    [
        ("import time; time.sleep(60)", 0.5, "not done in 0.5 s"),
        ("import os; os.kill(os.getpid(), 9)", 60, "lack of memory"),
        ("raise SystemExit('prog: error: needs 9.0 GB')", 60, "needs 9.0 GB"),
        ("print('no JSON')", 60, "Expecting value"),
    ],
)
def test_what_does_not_fit_is_kept_with_the_reason(processes, tmp_path, program, limit, reason):
    assert run.run([job(program)], Store(tmp_path), RUN, limit=limit) == 1
    found = Store(tmp_path).read("steps")["a"]
    assert reason in found.reason
    text = page.write(Store(tmp_path))
    assert "## Without a result" in text and f"| steps | a | {found.reason}" in text
    assert "Training steps" not in text and "| a | 0123456 |" in text


def figures(median, macs=None):
    return {
        "median_s": median, "examples_per_s": 8 / median, "compile_s": 4.0,
        "peak_bytes": 2_000_000_000, "macs": macs, "times_s": [median, 0.9 * median],
    }  # fmt: skip


def add(store, part, name, document, run_of=RUN):
    store.write(Record(part, name, run_of, "python -m y", 0.5, 1.0, None, document))


@pytest.fixture
def results(tmp_path):
    """Two models of a group, the second of them in PyTorch too; one network slimmed; input."""
    store = Store(tmp_path / "results")
    setup = {"device": HERE["device"], "batch": 8, "size": "4x4", "dtype": "bfloat16", "jax": "1.0",
             "python": "3.x", "cores": 2}  # fmt: skip
    models = {"plain": figures(0.5, 10**12), "coded": figures(0.6, 10**12),
              "plain:field=1": figures(0.25, 1)}  # fmt: skip
    torch = {"models": {"coded": figures(3.0)}, "setup": {"torch": "2.x", "python": "3.y"}}
    compared = {"coded": {"median": 5.0, "least": 4.5, "most": 6.0}}
    older = {**RUN, "date": "2025-01-02"}
    add(store, "steps", "plain", {"models": {"plain": figures(9.0)}, "setup": setup}, older)
    other = {**RUN, "commit": "abcdefghij", "dirty": True}
    beside = {"models": models, "setup": setup, "torch": torch, "compared": compared}
    add(store, "torch", "steps: plain", beside, other)
    slim = {
        "taken_out": "class 0", "parameters": {"full": 100, "slim": 40}, "macs_ratio": 0.6,
        "times": [{"batch": 32, "full_ms": 2.0, "slim_ms": 1.0, "ratio": 0.5}],
    }  # fmt: skip
    add(store, "slim", "net", slim)
    add(store, "input", "streamed", {"streamed": {"folder, 160": {"images_per_s": 123.4}}})
    return store


def lines_of(text, title):
    body = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [line for line in body.splitlines() if line.startswith("|")][2:]


def test_the_page_says_where_every_number_is_from(results):
    text = page.write(results)
    compared = lines_of(text, "What is compared with what")
    assert compared == [
        "| Training steps | coded | plain | 1.200 (1.200–1.200) | a |",
        "| Training steps | plain | plain:field=1 | 2.000 (2.000–2.000) | a |",
        "| Training steps | PyTorch | coded | 5.000 (4.500–6.000) | a |",
    ]
    plain, coded, _ = lines_of(text, "Training steps")  # and not the older result
    # 6 x 10^12 operations an image, 16 images a second, of 989 TFLOP/s.
    assert "| 96,000 (9.7% of peak) |" in plain and plain.endswith("| – | – | a |")
    assert "| 3 (2.7–3) |" in coded and coded.endswith("| a |")
    assert lines_of(text, "Slimmed against full")[0].endswith("| 2.00 | 1.00 | 0.500 | b |")
    assert "123 images/s a core" in lines_of(text, "Input")[0]
    assert text.count("Peak of NVIDIA H100 80GB HBM3: 989,000 · 10⁹ operations/s (nvidia.com") == 1
    first, second = lines_of(text, "Runs")
    assert first.startswith("| a | abcdefg and changes |") and second.startswith("| b | 0123456 |")
    assert "| NVIDIA H100 80GB HBM3, 2 cores | python 3.x, jax 1.0 | 0.5 (to 0.5) |" in first


def test_the_page_names_what_was_not_run_yet(results):
    quick, *_, last = plan.GROUPS
    add(results, "steps", quick.name, {"models": {}, "setup": {"device": "cpu", "dtype": ""}})
    assert lines_of(page.write(results), "Without a result") == []  # the quick suite has no others
    for part, name in (("steps", last.name), ("torch", f"inference: {last.name}")):
        add(results, part, name, {"models": {}, "setup": {"device": "cpu", "dtype": "float32"}})
    missing = [
        f"| {part} | {group.name} | not run yet | – | – |"
        for part, tried in (("steps", {quick, last}), ("inference", {last}))
        for group in plan.GROUPS
        if group not in tried
    ]
    assert lines_of(page.write(results), "Without a result") == missing


def test_the_load_of_a_run_is_that_of_its_processes_not_of_its_rows(tmp_path):
    store = Store(tmp_path)
    row = {"batch": 1, "full_ms": 2.0, "slim_ms": 1.0, "ratio": 0.5}
    for name, load, rows in (("a", 1.0, 9), ("b", 2.0, 1), ("c", 4.0, 1)):
        document = {
            "taken_out": "class 0", "parameters": {"full": 2, "slim": 1}, "macs_ratio": 0.5,
            "times": [row] * rows,
        }  # fmt: skip
        store.write(Record("slim", name, RUN, "python -m y", load, 1.0, None, document))
    (row,) = lines_of(page.write(store), "Runs")
    assert "| 2.0 (to 4.0) |" in row


def test_the_page_alone_is_written_from_the_json(results, capsys):
    folder = results.folder
    before = {file.name: file.read_text() for file in folder.iterdir()}
    assert suite.main(["--page", f"--out={folder}"]) == 0
    assert folder.with_suffix(".md").read_text() == page.write(results)
    assert {file.name: file.read_text() for file in folder.iterdir()} == before
    assert capsys.readouterr().out.strip() == str(folder.with_suffix(".md"))


def test_a_suite_that_is_ended_writes_its_page(monkeypatch, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(machine, "describe", lambda: HERE)
    monkeypatch.setattr(run, "run", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(SystemExit) as stop:
            suite.main([f"--out={tmp_path / 'found'}"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stop.value.code == 143 and (tmp_path / "found.md").exists()


def test_inference(tiny, capsys):
    inference.main(["tiny", "tiny:stem_channels=64", "--batch=2", "--rounds=1", "--json"])
    small, large = json.loads(capsys.readouterr().out)["models"].values()
    assert min(small["median_s"], small["compile_s"]) > 0
    assert small["macs"] < large["macs"] and small["peak_bytes"] < large["peak_bytes"]


def test_more_memory_than_there_is_is_refused(tiny, monkeypatch, capsys):
    monkeypatch.setattr(inference.models.memory, "host_free", lambda: 10)
    with pytest.raises(SystemExit) as stop:
        inference.main(["tiny", "--batch=2", "--rounds=1"])
    assert stop.value.code == 2 and "GB are free" in capsys.readouterr().err


def test_the_page_names_no_place_of_this_machine():
    parser = suite._parser()
    words = ["--torch-python", "/home/me/bin/python", "--only=torch", "--out=/home/me/found"]
    command = suite._command(parser, parser.parse_args(words))
    assert command == "python -m benchmarks --only=torch --torch-python=PATH --out=found"


def test_the_suite_asks_before_it_measures(monkeypatch, tmp_path, results, capsys):
    monkeypatch.setattr(machine, "describe", lambda: {**HERE, "cores": 96})
    for words, message in (
        ([f"--out={results.folder}"], "is of another machine (NVIDIA H100 80GB HBM3, 2 cores)"),
        ([f"--out={tmp_path / 'new'}", f"--torch-python={tmp_path / 'no'}"], "No such file"),
    ):
        with pytest.raises(SystemExit) as stop:
            suite.main(words)
        assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "rate"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", None),
        ("TPU v2", 23e12),  # half a chip
        ("TPU v4", 275e12),
        ("TPU v4 lite", None),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("cpu", None),
    ],
)
def test_peaks_are_of_whole_names_in_half_precision(kind, rate):
    assert peaks.peak(kind, "bfloat16") == rate
    assert peaks.peak(kind, "float32") is None
    assert rate is None or "." in peaks.source(kind)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only=stepz"], "no part 'stepz'"),
        (["--rounds=-1"], "above 0"),
        (["--limit=0"], "above 0"),
        (["--only=steps,torch"], "the part torch needs --torch-python"),
    ],
)
def test_bad_input(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        suite.main(words)
    assert stop.value.code == 2 and message in capsys.readouterr().err
