"""How much memory is free: read from files as Linux has them."""

import types

import pytest

from branchnets import memory

GB = 1_000_000_000


@pytest.fixture
def machine(tmp_path):
    """Writes a machine with 8 kB free and 2 kB of swap space, and the groups of a process."""

    def make(groups, **files):
        files = {
            "proc/meminfo": "MemTotal: 16 kB\nMemAvailable:  8 kB\nSwapFree: 2 kB\n",
            "proc/self/cgroup": groups,
            **files,
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return make


def group(folder, limit, usage, version=2):
    names = {1: ("limit_in_bytes", "usage_in_bytes", "total_"), 2: ("max", "current", "")}
    first, second, prefix = names[version]
    return {
        f"sys/fs/cgroup/{folder}/memory.{first}": f"{limit}\n",
        f"sys/fs/cgroup/{folder}/memory.{second}": f"{usage}\n",
        f"sys/fs/cgroup/{folder}/memory.stat": (
            f"anon 5\nactive_anon 7\n{prefix}inactive_file 60\n{prefix}active_file 40\n"
            + ("slab_reclaimable 10\n" if version == 2 else "active_file 30\n")
        ),
    }


def test_what_the_system_has_left(machine):
    assert memory.host_free(machine("")) == 10 * 1024
    unlimited = group("a", "max", 7)
    assert memory.host_free(machine("0::/a\n", **unlimited)) == 10 * 1024


def test_the_tightest_group_decides_and_cached_files_count_as_free(machine):
    files = group("job", 4000, 1000) | group("job/step", "max", 900)
    assert memory.host_free(machine("0::/job/step\n", **files)) == 4000 - 1000 + 110
    # In a container the path is the host's; what is mounted is the group itself.
    assert memory.host_free(machine("0::/elsewhere\n", **group(".", 2000, 500))) == 1610


def test_the_older_control_groups(machine):
    files = group("memory/job", 3000, 2950, version=1)
    assert memory.host_free(machine("4:cpu,memory:/job\n1:cpu:/\n", **files)) == 150


def test_a_full_group_leaves_nothing(machine):
    assert memory.host_free(machine("0::/a\n", **group("a", 1000, 2000))) == 0


def test_without_these_files_there_is_still_an_answer(tmp_path):
    found = memory.host_free(tmp_path)
    assert found is None or found > 1_000_000
    assert memory.host_free() > 1_000_000


class Device:
    """Says what an accelerator says."""

    platform = "gpu"

    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        return self.stats


class Mesh:
    """Has these devices."""

    def __init__(self, *stats):
        self.local_devices = [Device(s) for s in stats]


def test_the_device_with_least_decides():
    found = memory.free(
        Mesh({"bytes_limit": 9 * GB}, {"bytes_limit": 8 * GB, "bytes_in_use": 3 * GB}, None)
    )
    assert found.device == 5 * GB and found.devices == 3 and not found.shared
    assert memory.free(Mesh({})).device is None


@pytest.mark.parametrize(("alias", "bytes_"), [(0, 111), (60, 51), (200, 11)])
def test_what_a_program_takes_besides_its_arguments(alias, bytes_):
    stats = types.SimpleNamespace(
        argument_size_in_bytes=1000,
        output_size_in_bytes=100,
        alias_size_in_bytes=alias,
        temp_size_in_bytes=10,
        generated_code_size_in_bytes=1,
    )
    assert memory.beside_arguments(stats) == bytes_
