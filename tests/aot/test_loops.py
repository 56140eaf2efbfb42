"""How often what is in loops runs, and what a program costs with that."""

import pytest

from branchnets.aot import hlo, loops, roofline, topologies
from branchnets.aot.chips import CHIPS
from branchnets.aot.collectives import by_kind, collectives
from branchnets.aot.totals import _analysis, beginning_with, totals

# As libtpu writes them: nothing says how long a loop is, the constant that the inner one starts
# from comes from outside through the outer one's state, and copies lie between.
PROGRAM = """HloModule made_up, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(256)} parameter(0)
  %y = f32[]{:T(256)} parameter(1)
  ROOT %sum = f32[]{:T(256)} add(%x, %y)
}

%inner (s: (s32[], f32[6])) -> (s32[], f32[6]) {
  %s = (s32[], f32[6]{0:T(256)}) parameter(0)
  %at = s32[]{:T(256)} get-tuple-element(%s), index=0
  %value = f32[6]{0:T(256)} get-tuple-element(%s), index=1
  %turned = f32[6]{0:T(256)} all-reduce(%value), to_apply=%add
  %two = s32[]{:T(256)} constant(2)
  %next = s32[]{:T(256)} add(%two, %at)
  ROOT %out = (s32[], f32[6]) tuple(%next, %turned)
}

%until (s: (s32[], f32[6])) -> pred[] {
  %s = (s32[], f32[6]{0:T(256)}) parameter(0)
  %end = s32[]{:T(256)} constant(9)
  %at = s32[]{:T(256)} get-tuple-element(%s), index=0
  ROOT %go = pred[]{:T(512)} compare(%end, %at), direction=GT
}

%outer (s: (s32[], s32[], f32[6])) -> (s32[], s32[], f32[6]) {
  %s = (s32[], s32[], f32[6]{0:T(256)}) parameter(0)
  %at = s32[]{:T(256)} get-tuple-element(%s), index=0
  %zero = s32[]{:T(256)} get-tuple-element(%s), index=1
  %value = f32[6]{0:T(256)} get-tuple-element(%s), index=2
  %copied = s32[]{:T(256)} copy(%zero)
  %state = (s32[], f32[6]) tuple(%copied, %value)
  %loop = (s32[], f32[6]) while(%state), condition=%until, body=%inner
  %turned = f32[6]{0:T(256)} get-tuple-element(%loop), index=1
  %one = s32[]{:T(256)} constant(1)
  %next = s32[]{:T(256)} add(%at, %one), backend_config={"window_config":{"estimated_cycles":"7"}}
  ROOT %out = (s32[], s32[], f32[6]) tuple(%next, %zero, %turned)
  %late = s32[]{:T(256)} constant(3)
}

%limit (s: (s32[], s32[], f32[6])) -> pred[] {
  %s = (s32[], s32[], f32[6]{0:T(256)}) parameter(0)
  %end = s32[]{:T(256)} constant(10)
  %at = s32[]{:T(256)} get-tuple-element(%s), index=0
  ROOT %go = pred[]{:T(512)} compare(%at, %end), direction=LT
}

ENTRY %main (g: f32[6]) -> f32[6] {
  %g = f32[6]{0:T(256)} parameter(0)
  %zero = s32[]{:T(256)} constant(0)
  %start = s32[]{:T(256)} constant(4)
  %state = (s32[], s32[], f32[6]) tuple(%start, /*index=1*/%zero, %g)
  %loop = (s32[], s32[], f32[6]) while(%state), condition=%limit, body=%outer
  ROOT %last = f32[6]{0} get-tuple-element(%loop), index=2
}
"""


def test_loops_are_as_long_as_their_counters_say():
    program = hlo.parse(PROGRAM)
    found = loops.runs(program)
    assert {loop.body: loop.trips for loop in found.loops} == {"outer": 6, "inner": 5}
    assert found.times["main"] == 1 and found.times["outer"] == 6 and found.times["inner"] == 30
    (row,) = by_kind(collectives(program, found))
    assert row["count"] == 1 and row["in_loops"] == 1 and row["operand_bytes"] == 24
    assert row["times"] == 30 and row["moved_bytes"] == 30 * 24
    sent = roofline.estimate(
        CHIPS["v4"],
        2,
        flops=0.0,
        bytes_accessed=0.0,
        model_flops=0.0,
        collectives=collectives(program, found),
    )
    assert sent.network_seconds == pytest.approx(30 * 24 / CHIPS["v4"].network)
    once = {"flops": 1.0, "bytes accessed": 2.0, "optimal_seconds": 3.0}
    whole = totals(PROGRAM, program, found, once)
    assert whole.seconds == 18.0  # all of its cycles are in a loop
    assert whole.unknown_loops == 0
    # The inner body adds 6 numbers and 1; around it there are one more sum and a comparison.
    assert whole.flops == 1 + 5 * 9 + 24 * 7
    (_, inner), (_, outer) = _analysis(PROGRAM, "inner"), _analysis(PROGRAM, "outer")
    assert whole.bytes_accessed == 2 + 5 * outer + 24 * inner and outer > inner >= 2 * 24


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("%start = s32[]{:T(256)} constant(4)", "%start = s32[]{:T(256)} parameter(1)"),
        ("compare(%at, %end), direction=LT", "compare(%at, %end), direction=NE"),
        ("add(%at, %one)", "multiply(%at, %one)"),
    ],
)
def test_a_loop_that_does_not_tell_its_length_counts_once(old, new):
    assert PROGRAM.count(old) == 1
    program = hlo.parse(PROGRAM.replace(old, new))
    found = loops.runs(program)
    assert {loop.body: loop.trips for loop in found.loops} == {"outer": None, "inner": 5}
    assert found.times["outer"] == 1 and found.times["inner"] == 5
    whole = totals(PROGRAM, program, found, {"flops": 1.0, "bytes accessed": 2.0})
    assert whole.unknown_loops == 1 and whole.seconds is None


def test_a_loop_that_never_turns_costs_nothing():
    program = hlo.parse(PROGRAM.replace("constant(10)", "constant(4)"))
    found = loops.runs(program)
    assert found.times["outer"] == found.times["inner"] == 0
    assert [one.times for one in collectives(program, found)] == [0]


@pytest.mark.parametrize("error", [ImportError, AttributeError, TypeError, ValueError])
def test_without_a_reader_of_bodies_loops_count_once(error, monkeypatch):
    def refuse(text, body):
        raise error

    monkeypatch.setattr("branchnets.aot.totals._analysis", refuse)
    program = hlo.parse(PROGRAM)
    whole = totals(PROGRAM, program, loops.runs(program), {"flops": 1.0, "bytes accessed": 2.0})
    assert (whole.flops, whole.bytes_accessed, whole.unknown_loops) == (1.0, 2.0, 2)


def test_a_body_that_is_not_there_is_no_part():
    for name in ("main", "inner"):
        part = beginning_with(PROGRAM, name)
        assert part.count("ENTRY ") == 1 and f"ENTRY %{name} " in part
    with pytest.raises(ValueError, match="no computation 'absent'"):
        beginning_with(PROGRAM, "absent")


def test_a_compiled_program_costs_what_its_loops_do():
    import jax
    import jax.numpy as jnp

    def run(x, kernels):
        def layer(x, kernel):
            rows = jax.lax.map(lambda row: row @ kernel, x)
            return rows + jax.lax.map(lambda row: row @ kernel, rows), None

        return jax.lax.scan(layer, x, kernels)[0]

    found = {}
    for layers in (2, 20):
        shapes = [jax.ShapeDtypeStruct(of, jnp.float32) for of in ((6, 32, 32), (layers, 32, 32))]
        compiled = jax.jit(run).lower(*shapes).compile()
        text, analysis = compiled.as_text(), compiled.cost_analysis()
        program = hlo.parse(text)
        runs = loops.runs(program)
        assert sorted(loop.trips for loop in runs.loops) == sorted([layers, 6, 6])
        found[layers] = totals(text, program, runs, analysis)
    products = 2 * 32**3 * 6 * 2  # of a layer
    for layers, whole in found.items():
        assert layers * products <= whole.flops < 1.1 * layers * products
        assert whole.unknown_loops == 0
    assert found[20].bytes_accessed == pytest.approx(10 * found[2].bytes_accessed, rel=0.1)


@pytest.mark.tpu_compile
@pytest.mark.parametrize("name", ["v2:2x2", "v4:2x2x1"])
def test_bodies_are_counted_as_the_compiler_for_tpus_counts_the_whole(name):
    # The totals add what one reader says of bodies to what another says of the program. They agree
    # where nothing is padded: with 128 channels.
    pytest.importorskip("libtpu")
    import jax

    topologies.prepare_environment()
    place = jax.sharding.SingleDeviceSharding(topologies.find(name).devices[0])

    def run(x, kernels):
        def layer(x, kernel):
            return jax.nn.relu(jax.lax.conv(x, kernel, (1, 1), "SAME")), None

        return (jax.lax.scan(layer, x, kernels)[0].astype("float32") ** 2).mean()

    shapes = [
        jax.ShapeDtypeStruct(of, "bfloat16", sharding=place)
        for of in ((32, 128, 16, 16), (5, 128, 128, 3, 3))
    ]
    traced = jax.jit(jax.grad(run, 1)).trace(*shapes)
    compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    text, once = compiled.as_text(), compiled.cost_analysis()
    program = hlo.parse(text)
    found = loops.runs(program)
    assert [loop.trips for loop in found.loops] == [5, 5]
    flops, moved = _analysis(text, program.entry)
    assert flops == pytest.approx(once["flops"], rel=0.02)
    assert moved == pytest.approx(once["bytes accessed"], rel=0.02)
    assert totals(text, program, found, once).flops > 4 * flops
