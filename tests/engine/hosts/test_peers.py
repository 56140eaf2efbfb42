"""Processes that agree on a step to stop at, simulated by threads; real ones are slower."""

from __future__ import annotations

import random
import threading
import time

import pytest

from branchnets.engine.hosts import peers as module
from branchnets.engine.hosts.peers import Peers
from branchnets.engine.stopping import INTERRUPTED, PEER_LOST, PREEMPTED, StopRequest
from branchnets.errors import DataError, PeerFailed, PeerLost

AHEAD, TOTAL = 2, 60


class Store:
    """Of all threads; slow at random."""

    def __init__(self, seed):
        self._rng, self._values, self._lock = random.Random(seed), {}, threading.Lock()

    def _wait(self):
        time.sleep(self._rng.uniform(0, 0.002))

    def set(self, key, value):
        self._wait()
        with self._lock:
            self._values.setdefault(key, value)

    def all(self, folder):
        self._wait()
        with self._lock:
            found = dict(self._values)
        start = f"{folder}/"
        return {k.removeprefix(start): v for k, v in found.items() if k.startswith(start)}


class Run:
    """Processes whose steps need all of them, each at most `AHEAD` before the slowest."""

    def __init__(self, seed, count, total=TOTAL):
        self.rng, self.store = random.Random(seed), Store(seed)
        self.count, self.total = count, total
        self.stops = [StopRequest() for _ in range(count)]
        self.begun, self.ended = [0] * count, [None] * count
        self.exits = []
        self.peers = [
            Peers(stop, self.store, process, count, end=self.exits.append)
            for process, stop in enumerate(self.stops)
        ]

    def _live(self, process, pauses, act):
        try:
            for step in range(1, self.total + 1):
                self.begun[process] = step
                act(process, step)
                while step - AHEAD > min(self.begun):  # what it waits for needs all of them
                    if self.peers[process]._lost or self.exits:
                        raise RuntimeError("a connection broke")
                    time.sleep(0.0002)
                time.sleep(pauses[step])
                if (status := self.peers[process].at(step)) is not None:
                    self.ended[process] = (step, status)
                    break
            else:
                self.ended[process] = (self.total, 0)
            # Those behind have steps left that need this one, which has done its part of them.
            self.begun[process] = 10 * self.total
            self.peers[process].close()
        except Exception as error:
            self.ended[process] = self.peers[process].failed(error)

    def run(self, act):
        """Calls act(process, step) before each step; returns how each process ended."""
        pauses = [
            [self.rng.choice((0, 0, 0, 0.004)) for _ in range(self.total + 1)]
            for _ in range(self.count)
        ]
        threads = [
            threading.Thread(target=self._live, args=(process, pauses[process], act))
            for process in range(self.count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive(), self.ended
        return self.ended


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.005)
    monkeypatch.setattr(module, "GRACE", 0.5)
    runs = []
    original = Run.__init__

    def noted(run, *arguments, **options):
        original(run, *arguments, **options)
        runs.append(run)

    monkeypatch.setattr(Run, "__init__", noted)
    yield
    for peers in (peers for run in runs for peers in run.peers):
        peers.close()


@pytest.mark.parametrize("seed", range(12))
def test_all_stop_after_the_same_step(seed):
    rng = random.Random(seed)
    run = Run(seed, count=rng.choice((2, 3, 5)))
    who, moment = rng.randrange(run.count), rng.randrange(1, TOTAL + 1)

    def act(process, step):
        if process == who and step == moment:
            run.stops[process].status = PREEMPTED

    ended = run.run(act)
    assert len(set(ended)) == 1
    step, status = ended[0]
    assert (step == TOTAL and status == 0) or (step >= moment and status == PREEMPTED)
    if status:
        assert [peers.asker for peers in run.peers] == [who] * run.count
    assert run.exits == []


def test_a_signal_before_the_first_step_stops_after_it_and_two_signals_are_one():
    run = Run(0, count=3)
    run.stops[2].status = INTERRUPTED
    time.sleep(0.1)  # it is known before anyone begins, as during compilation
    run.stops[0].status = PREEMPTED
    assert run.run(lambda *_: None) == [(1, INTERRUPTED)] * 3


def test_a_signal_at_the_end_changes_nothing_and_holds_nobody_up():
    run = Run(0, count=2)

    def act(process, step):
        if process == 1 and step == TOTAL:
            while run.ended[0] is None:  # the other one is through
                time.sleep(0.001)
            run.stops[1].status = PREEMPTED
            time.sleep(0.05)

    assert run.run(act) == [(TOTAL, 0)] * 2


def test_one_that_knows_of_its_error_before_stops_all_after_the_same_step():
    run = Run(0, count=3)

    def act(process, step):
        if process == 1 and step == 20:
            run.peers[1].ask(PEER_LOST)
            run.peers[1].ask(PREEMPTED)  # the first one holds

    ended = run.run(act)
    assert len(set(ended)) == 1 and 20 <= ended[0][0] < TOTAL and ended[0][1] == PEER_LOST


def test_the_error_of_one_ends_all():
    run = Run(0, count=3)

    def act(process, step):
        if process == 1 and step == 20:
            raise DataError("its input failed")

    ended = run.run(act)
    assert isinstance(ended[1], DataError)
    # One that waits for a connection that breaks learns why, as one does that asks.
    for process in (0, 2):
        if not isinstance(ended[process], RuntimeError):
            assert isinstance(ended[process], PeerLost)
        lost = run.peers[process]._lost
        assert str(lost).startswith("process 1 failed: its input failed What was saved is whole")


def test_whoever_cannot_end_by_itself_is_ended(capsys):
    run = Run(0, count=2)
    run.peers[0].at(1)  # trained already
    run.peers[0].failed(DataError("its input failed."))
    deadline = time.monotonic() + 5
    while not run.exits and time.monotonic() < deadline:
        time.sleep(0.01)  # as in an operation that waits for the other process
    assert run.exits == [PeerLost.exit_status] == [76]
    told = capsys.readouterr().err
    assert told.startswith("error: process 1: process 0 failed: its input failed. What was saved")


def test_what_can_be_mended_before_the_first_step_is_an_error_of_the_user_in_all():
    run = Run(0, count=2)
    run.peers[0].failed(DataError("there is no data."))
    deadline = time.monotonic() + 5
    while run.peers[1]._lost is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(PeerFailed, match="^process 0 failed: there is no data.$") as raised:
        run.peers[1].raise_if_lost()
    assert raised.value.exit_status == 2


def test_a_store_out_of_reach_ends_the_process(capsys):
    run = Run(0, count=2)

    def all_of(folder):
        raise PeerLost("process 0 is out of reach (socket closed).")

    run.store.all = all_of
    deadline = time.monotonic() + 5
    while len(run.exits) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run.exits == [76, 76]
    assert "out of reach (socket closed)" in capsys.readouterr().err
