"""The Dockerfile, as far as it can be judged without an engine: what it copies is let through."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def test_what_is_copied_is_there_and_not_ignored():
    copied = re.findall(r"^COPY ((?!--from).*) \S+$", LINES, re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert names == set(allowed) and "branchnets" in names
    assert all((ROOT / name).exists() for name in names)


@pytest.mark.parametrize(
    "device, extras",
    [
        ("cpu", "gcs,opencv"),
        ("cuda12", "cuda12,gcs,opencv"),
        ("tpu", "tpu,gcs,opencv"),
        ("gpu", None),
    ],
)
def test_the_install_takes_the_extras_of_the_device(device, extras):
    """The RUN line itself, with a pip that prints what it is asked for."""
    (command,) = re.findall(r"^RUN (case .*)$", LINES, re.MULTILINE)
    script = f"pip() {{ echo {chr(34)}$*{chr(34)}; }}; {command}"
    done = subprocess.run(
        ["sh", "-c", script], env={"DEVICE": device}, capture_output=True, text=True
    )
    if extras is None:
        assert done.returncode == 2 and "cpu, cuda, cuda12 or tpu" in done.stderr
        return
    assert done.stdout.strip().endswith(f".[{extras}]")
    declared = (ROOT / "setup.py").read_text()
    assert all(f'"{name}": [' in declared for name in extras.split(","))


def test_any_user_has_a_home_and_a_place_for_runs():
    """As docker run --user has it; and the commands on top name the folder that there is."""
    home = re.search(r"HOME=(\S+)", LINES)[1]
    folder = re.search(r"^WORKDIR (/(?!source).*)$", LINES, re.MULTILINE)[1]
    assert f"chmod 1777 {home} {folder}/runs" in LINES
    assert set(re.findall(r"runs:(\S+)/runs", LINES)) == {folder}
