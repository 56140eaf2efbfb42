"""Topologies, the roofline, the largest batch and what a sweep must show; nothing is compiled."""

import dataclasses
import os
import types

import pytest

from branchnets.aot import accelerators, against, fits, roofline, study, tables, topologies
from branchnets.aot.chips import CHIPS, Chip
from branchnets.aot.collectives import Collective
from branchnets.aot.cost import Cost, needed, reason, seconds
from branchnets.engine import config as configs
from branchnets.errors import ConfigError

CHIP = Chip("made up", 100.0, 1000, 450, 50.0, 10.0, 2, "nowhere")  # two devices: 50, 500, 25 and 5


def test_a_topology_names_a_chip_and_a_mesh():
    assert topologies.parse("v5e:16x16") is topologies.parse("v5e-256") is CHIPS["v5e"]
    assert set(accelerators.MESHES) == set(CHIPS)
    for sizes in topologies.SWEEPS.values():
        for devices, name in sizes.items():
            size = accelerators.chips(name.partition(":")[2])
            assert size * topologies.parse(name).devices == devices


@pytest.mark.parametrize(
    ("name", "topology"),
    [
        ("v2-8", "v2:2x2"),
        ("v3-32", "v3:4x4"),
        ("v4-16", "v4:2x2x2"),
        ("v5litepod-16", "v5e:4x4"),
        ("v5e-16", "v5e:4x4"),
        ("v5p-8", "v5p:2x2x1"),
        ("v6e-8", "v6e:2x4"),
        ("v4:2x2x1", "v4:2x2x1"),
    ],
)
def test_accelerator_types_are_understood(name, topology):
    assert accelerators.topology_name(name) == topology


def test_every_mesh_has_an_accelerator_type_of_its_own():
    for generation, meshes in accelerators.MESHES.items():
        for mesh in meshes:
            name = accelerators.type_of(generation, mesh)
            assert accelerators.topology_name(name) == f"{generation}:{mesh}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v3-48", r"v3-48: .* TensorCores.* v3-32 \(v3:4x4\) and v3-64 \(v3:4x8\)"),
        ("v5litepod-2", r"of chips.* v5litepod-1 \(v5e:1x1\) and v5litepod-4 \(v5e:2x2\)"),
        ("v2-9999", r"v2-512 \(v2:16x16\)\.$"),
        *((name, "v2, v3, v4, v5e, v5p, v6e") for name in ("v9:2x2", "v9-8", "2x2", "")),
        *((name, r"v2-8 \(v2:2x2\)") for name in ("v2", "v2:", "v2:2", "v2:0x2", "v2:2x2 ")),
    ],
)
def test_a_wrong_topology_is_told_which_there_are(name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        topologies.parse(name)
    assert "Did you mean" not in str(caught.value)


def test_the_roofline_is_the_slower_of_two_and_the_network():
    sent = [Collective("all-reduce", 10, False, ""), Collective("all-gather", 1, False, "")]
    found = roofline.estimate(
        CHIP, 4, flops=100.0, bytes_accessed=25.0, model_flops=50.0, collectives=sent
    )
    assert found.compute_seconds == 2.0 and found.memory_seconds == 1.0
    assert found.network_seconds == pytest.approx((2 * 10 * 3 / 4 + 3) / 5)
    assert found.step_seconds == pytest.approx(2.0 + 18 / 5)
    assert found.mfu == pytest.approx(50 / (5.6 * 50))
    alone = roofline.estimate(
        CHIP, 1, flops=1.0, bytes_accessed=50.0, model_flops=1.0, collectives=[]
    )
    assert alone.step_seconds == 2.0


@pytest.mark.parametrize(
    ("kind", "sent"),
    [("all-reduce", 12.0), ("all-gather", 24.0), ("reduce-scatter", 6.0), ("all-to-all", 6.0)]
    + [("collective-permute", 8.0)],
)
def test_what_a_device_sends(kind, sent):
    assert roofline.sent_bytes(Collective(kind, 8, False, ""), 4) == sent


@pytest.mark.parametrize("limit", [0, 1, 5, 40, 63])
@pytest.mark.parametrize("guess", [None, 1, 40, 1000])
def test_the_largest_batch_is_found_in_few_tries(limit, guess):
    tried = []

    def enough(batch):
        assert batch % 8 == 0 and 0 < batch < 512
        tried.append(batch)
        return batch <= 8 * limit

    assert fits.largest(enough, 8, 512, guess) == 8 * limit
    assert len(tried) <= 8
    if guess == 40 and limit == 5:
        assert tried == [40, 48]


def test_what_a_batch_is_a_multiple_of():
    config = configs.base("plain")
    config.bn_group_size = 12
    assert fits.unit(config, 8, train=True) == 24 and fits.unit(config, 8, train=False) == 8
    config.optimizer.accumulate_steps = 3
    assert fits.unit(config, 8, train=True) == 72
    config.bn_group_size = None
    config.augment.mixup = 0.2
    assert fits.unit(config, 8, train=True) == 48


def test_the_message_of_the_compiler_is_read():
    message = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 9.50G of 7.48G hbm. Exceeded hbm capacity by 2.02G.\nTotal hbm usage >= 10G:"
    )
    assert needed(message) == round(9.5 * 2**30)
    assert reason(message) == "Used 9.50G of 7.48G hbm. Exceeded hbm capacity by 2.02G."
    newer = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (37.08G) exceeds available HBM (7.48G). HLO module: jit_run."
    )
    assert needed(newer) == round(37.08 * 2**30)
    assert reason(newer) == (
        "total memory required for HLO temporaries (37.08G) exceeds available HBM (7.48G)"
    )
    assert needed("RESOURCE_EXHAUSTED: something else") is None


def made(devices, reduces=(100,), **changed):
    exchanges = [Collective("all-reduce", size, False, "") for size in reduces]
    cost = Cost(
        *(f"v3:{devices}", "train", devices, 4 * devices, True, {"input": 1}, 1000, 900, 100, 1.0),
        **dict(total_flops=1e9, total_bytes=1e6, exchanges=exchanges, collectives=[]),
    )
    return dataclasses.replace(cost, **changed)


IN_PARTS = [Collective("all-reduce", 50, True, "", times=8)]


@pytest.mark.parametrize(
    ("found", "held"),
    [
        ([made(8), made(64)], [True] * 5),
        ([made(8), made(64, total_flops=1.02e9)], [False, True, True, True, True]),
        ([made(8), made(64, total_bytes=1.009e6)], [True] * 5),
        ([made(8), made(64, reduces=(100, 3))], [True, True, False, True, True]),
        ([made(8, (40,)), made(64, (40,))], [True, True, False, True, True]),
        ([made(8, (50,)), made(64, (50,))], [True, True, False, True, True]),
        ([made(8, (20,) * 5), made(64, (25,) * 4)], [True, True, True, True, False]),
        ([made(8, exchanges=IN_PARTS)] * 2, [True, True, False, True, False]),
        (
            [made(8, exchanges=[Collective("all-reduce", 100, True, "")], unknown_loops=1)] * 2,
            [None, None, None, True, None],
        ),
        ([made(8, unknown_loops=1)] * 2, [None, None, True, True, True]),
        (
            [made(8, exchanges=[Collective("all-reduce", 200, True, "")], unknown_loops=1)] * 2,
            [None, None, False, True, None],
        ),
        ([made(8), made(64, fits=False)], [False]),
    ],
)
def test_what_a_sweep_must_show(found, held):
    config = configs.base("plain")
    config.bn_group_size = 2
    claims = study.claims(found, config, 4)
    assert [claim.holds for claim in claims] == held
    text = tables.claims_table(claims)
    assert text.count("FAILS") == held.count(False)
    assert text.count("not claimed") == held.count(None)


def test_gathered_activations_are_found_and_groups_over_devices_claim_nothing():
    gathered = Collective("all-gather", 5, False, "jit(run)/conv")
    found = [made(8), made(64, exchanges=[Collective("all-reduce", 100, False, ""), gathered])]
    config = configs.base("plain")
    claims = study.claims(found, config, 4)
    assert [claim.holds for claim in claims] == [True, True, True, False, None]
    assert "1; the largest, on v3:64: all-gather of 5 bytes in jit(run)/conv" in claims[3].shown


def test_gradients_in_bfloat16_are_half_of_the_parameters():
    config = configs.base("plain")
    config.bn_group_size, config.dtype = 2, "bfloat16"
    for size, held in ((55, True), (100, False), (27, False)):
        found = [made(8, (size,)), made(64, (size,))]
        assert study.claims(found, config, 4)[2].holds is held


def test_a_step_that_does_not_fit_is_told_beside_one_that_does():
    no = made(8, fits=False, needed_bytes=2000, reason="Used 2K of 1K hbm.", largest_batch=24)
    text = tables.table([made(8), dataclasses.replace(no, step="eval")])
    assert "eval does not fit: it needs 2 kB a device, of 900 B that a program may" in text
    assert "peak, of 900 B usable, 1 kB published" in text
    assert "--config.eval.batch_size=24" in text
    assert "does not fit" in tables.sweep_table([no])
    none = dataclasses.replace(no, largest_batch=0, smallest_batch=8)
    assert "smallest batch, --config.batch_size=8, does not either" in tables.table([none])


def test_a_search_tells_what_fits(monkeypatch):
    config = configs.base("plain")
    config.batch_size = 64

    def steps(config, devices):
        return [types.SimpleNamespace(name="train", batch_size=config.batch_size)]

    def cost(step, topology):
        return made(8, batch_size=step.batch_size, fits=step.batch_size <= 24, peak_bytes=1000)

    monkeypatch.setattr(study, "steps", steps)
    monkeypatch.setattr(study, "cost", cost)
    (found,) = study.costs(config, topologies.Topology("v3:2x2", CHIP, (None,) * 8))
    assert not found.fits and found.largest_batch == 24 and found.smallest_batch == 8


def test_bounds_are_said_to_be_bounds():
    known = roofline.estimate(
        CHIP, 4, flops=100.0, bytes_accessed=25.0, model_flops=50.0, collectives=[]
    )
    one = made(8, roofline=dataclasses.replace(known, mfu=None), unknown_loops=2, loops=3)
    assert one.images_per_second is None
    text = tables.table([one])
    assert "train: lower bound, 2 loops of unknown length or cost count once." in text
    assert "%" not in text


def test_two_configs_are_compared_step_by_step():
    one = made(8, temp_bytes=108, flops=2.0)
    others = [made(8, temp_bytes=100, step="train:tune"), made(8, temp_bytes=100, step="eval")]
    assert against.partner(one, others) is others[0]
    assert against.partner(one, [*others, made(8, step="train:learn")]) is None
    found = against.ratios(one, others[0])
    assert found["temp_bytes"] == 1.08 and found["total_bytes"] == 1.0 and found["flops"] is None
    text = against.table([one], others, "other.py")
    assert "over other.py" in text and "1.080" in text and "several" not in text


def test_what_cannot_be_compared_is_told():
    one, other = made(8, flops=2.0, batch_size=64), made(8, flops=1.0, unknown_loops=1)
    for found in (against.ratios(one, other), against.ratios(other, one)):
        assert found["total_flops"] is None and found["total_bytes"] is None
    assert against.ratios(one, other)["flops"] == against.ratios(one, other)["batch_size"] == 2.0
    learn = dataclasses.replace(one, step="train:learn")
    text = against.table([learn], [], "other.py")
    assert text == "train:learn: other.py has no step, or several, to compare it with."


def test_an_estimate_below_nothing_is_none():
    assert seconds({"optimal_seconds": 0.1}) == 0.1
    assert seconds({"optimal_seconds": -128.9}) is None and seconds({}) is None


def test_a_program_may_not_have_all_of_the_memory():
    for chip in CHIPS.values():
        most = 1.01 if chip.name == "v5p" else 1.0  # of which libtpu gives more than is published
        assert 0.93 < chip.usable_bytes * chip.devices / chip.hbm_bytes < most


def test_no_other_device_than_the_processor_is_started(monkeypatch):
    import jax

    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setitem(os.environ, "XLA_FLAGS", "--xla_cpu_a=1 --xla_dump_to=b --xla_gpu_c=2")
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "tpu")
    try:
        topologies.prepare_environment()
        assert jax.config.jax_platforms == "cpu"
        assert os.environ["XLA_FLAGS"] == "--xla_dump_to=b"  # libtpu knows no other platform's
    finally:
        jax.config.update("jax_platforms", before)
