"""How often what is in loops runs, and what a program costs with that."""

import pytest

from branchnets.aot import hlo, loops, roofline
from branchnets.aot.chips import CHIPS
from branchnets.aot.collectives import by_kind, collectives
from branchnets.aot.totals import totals

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
    assert whole.unknown_loops == 0 and whole.bytes_accessed > 30 * 2 * 24


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
    assert found.times["inner"] == 5 and {"outer", "inner"} <= found.unknown
    whole = totals(PROGRAM, program, found, {"flops": 1.0, "bytes accessed": 2.0})
    assert whole.unknown_loops == 1 and whole.seconds is None


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
