"""What is no address of process 0 is refused at once, and so is a port that is not free."""

from __future__ import annotations

import socket

import pytest

from branchnets import main
from branchnets.engine.hosts import address, distributed
from branchnets.errors import ConfigError, UserError


@pytest.mark.parametrize("given", ["10.0.0.1", ":1234", "10.0.0.1:99999", "10.0.0.1:0", "a:1e3"])
def test_what_is_no_host_and_port_is_refused(given):
    with pytest.raises(ConfigError, match="must be HOST:PORT of process 0, the port one of 1 to"):
        address.check(given)


def test_a_host_that_nobody_knows_is_refused(monkeypatch):
    address.check("10.0.0.1:1234")
    address.check("[::1]:1234")
    asked = []

    def look_up(host, port):
        asked.append((host, port))
        raise socket.gaierror(kinds.pop(), "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    kinds = [socket.EAI_AGAIN, socket.EAI_NONAME]
    with pytest.raises(ConfigError, match="the host nosuch is not known here .Name or service"):
        address.check("nosuch:1234")
    address.check("nosuch:1234")  # no server of names answers, for the moment
    assert asked == [("nosuch", 1234)] * 2
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="is not known here"):
        address.check(f"{'a' * 70}.b:1234")  # no name at all


@pytest.fixture
def taken():
    """A port with a listener that would share it, as that of JAX does."""
    with socket.socket() as server:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            server.setsockopt(socket.SOL_SOCKET, option, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def test_a_port_in_use_ends_process_0_with_a_message(taken, tmp_path, capsys, monkeypatch):
    port = taken.getsockname()[1]
    command = ["main", "--config=configs/coded_digits.py:smoke", f"--workdir={tmp_path}/run"]
    command += [f"--coordinator_address=127.0.0.1:{port}", "--num_processes=2", "--process_id=0"]
    assert main.main(command) == 2
    expected = f"port {port} is in use on this machine; choose another"
    assert capsys.readouterr().err == f"error: {expected} --coordinator_address\n"
    # On a pod, and under SLURM.
    place = distributed.cluster.Place(f"127.0.0.1:{port}", 2, 0)
    monkeypatch.setattr(distributed.cluster, "detect", lambda timeout: place)
    with pytest.raises(UserError, match=f"{expected} one as JAX_COORDINATOR_PORT on all hosts"):
        distributed.initialize()


def test_a_port_that_a_run_has_left_is_free(taken):
    with socket.create_connection(taken.getsockname()) as client:
        connection, _ = taken.accept()
        connection.close()  # it is this end that keeps the port for a minute
        assert client.recv(1) == b""
    place = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(UserError, match="is in use"):
        address.check_free(place, "")
    taken.close()
    address.check_free(place, "")
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(("127.0.0.1", int(place.rpartition(":")[2])))


@pytest.mark.parametrize(
    "words, message",
    [
        (["--config=configs/no_such.py"], "there is no config file"),
        (["--config=configs/coded_digits.py", "--config.sed=1"], "unknown config field"),
        (["--config=configs/coded_digits.py", "--workdir=gs:/x"], "neither a URL nor a path"),
        (["--config=configs/coded_digits.py", "--workdir=s3://a/b"], "checkpoints are not kept"),
        (["--config=configs/coded_digits.py", "--mode=eval"], "leave --config out"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_started(words, message, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "initialize", lambda *_: pytest.fail("it was started"))
    assert main.main(["main", "--workdir=runs/none", *words]) == 2
    assert message in capsys.readouterr().err


def test_connections_to_the_coordinator_are_read_off_the_system():
    table = (
        "  sl  local_address rem_address   st tx_queue\n"
        "   0: 00000000:23F0 00000000:0000 0A 0\n"  # listens
        "   1: 0A00000A:23F0 0B00000A:9C40 01 0\n"
        "   2: 0A00000A:0016 0C00000A:9C41 01 0\n"  # another port
    )
    assert address.connected(table, 0x23F0) == ["10.0.0.11"]
    mapped = "h\n 1: 0:23F0 0000000000000000FFFF00000C00000A:9C41 01 0\n"
    assert address.connected(mapped, 0x23F0) == ["10.0.0.12"]


def test_the_hosts_that_have_come_are_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        if not address.connected_text(place):
            pytest.skip("the system does not tell connections")
        with socket.create_connection(server.getsockname()):  # process 0 itself
            assert address.connected_text(place) == "No other process is connected."
            with socket.create_connection(server.getsockname()):
                told = address.connected_text(place)
    assert told == "Connected, process 0 among them: 127.0.0.1, 127.0.0.1."
