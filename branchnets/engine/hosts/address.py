"""The address of process 0: whether it can be one, whether its port is free, who has come to it."""

from __future__ import annotations

import errno
import ipaddress
import socket
from pathlib import Path

from branchnets.errors import ConfigError, UserError


def check(address: str) -> None:
    """Refuses what nobody could come to.

    Raises:
      ConfigError: no HOST:PORT, no such port, or a host whose name is not known here.
    """
    host, port = _parts(address)
    flag = f"--coordinator_address={address}"
    if not host or not 0 < port < 65536:
        raise ConfigError(f"{flag} must be HOST:PORT of process 0, the port one of 1 to 65535.")
    try:
        socket.getaddrinfo(host.strip("[]"), port)
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", None) != socket.EAI_AGAIN:  # which passes
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"{flag}: the host {host} is not known here ({why}).") from error


def check_free(address: str, advice: str) -> None:
    """Refuses, on process 0, a port that it cannot listen at: JAX would take it for free, or crash.

    Args:
      address: HOST:PORT; the port is tried on all interfaces, as JAX has it.
      advice: what to do.

    Raises:
      UserError: it is in use, or not for everybody.
    """
    port = _parts(address)[1]
    both = socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if both else socket.AF_INET) as probe:
        # Connections of a run that has ended do not matter. Not SO_REUSEPORT, with which two runs
        # would share the port, and each take the processes of the other for its own.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if both:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(f"port {port} is in use on this machine; {advice}") from error
            if error.errno == errno.EACCES:
                raise UserError(f"port {port} is not for this user; {advice}") from error


def _parts(address: str) -> tuple[str, int]:
    """Host and port; a port of -1 where it is none."""
    host, _, port = address.rpartition(":")
    return host, int(port) if port.isascii() and port.isdecimal() else -1


def connected_text(address: str, root: Path = Path("/")) -> str:
    """Which hosts have come to process 0 on this one, as far as the system tells."""
    port = _parts(address)[1]
    found: list[str] = []
    for name in ("tcp", "tcp6"):
        try:
            found += connected((root / "proc/net" / name).read_text(), port)
        except OSError:
            return ""
    if len(found) < 2:  # process 0 is connected to itself
        return "No other process is connected."
    return f"Connected, process 0 among them: {', '.join(sorted(found))}."


def connected(table: str, port: int) -> list[str]:
    """The remote addresses of established connections to a port, of a table in /proc/net."""
    found = []
    for line in table.splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if int(local.rpartition(":")[2], 16) == port and state == "01":
            found.append(_address(remote.partition(":")[0]))
    return found


def _address(digits: str) -> str:
    """An address as /proc/net writes it: words of four bytes, the last byte first.

    >>> _address("0100007F"), _address("0000000000000000FFFF00000100007F")
    ('127.0.0.1', '127.0.0.1')
    """
    raw = b"".join(bytes.fromhex(digits[i : i + 8])[::-1] for i in range(0, len(digits), 8))
    found = ipaddress.ip_address(raw)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
