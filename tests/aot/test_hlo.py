"""The reader of compiled programs, and what devices exchange in them, on a made-up program."""

import pytest

from branchnets.aot import hlo, loops
from branchnets.aot.collectives import by_kind, collectives

PROGRAM = """HloModule jit_run, is_scheduled=true, entry_computation_layout={(f32[8])->f32[8]}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(256)} parameter(0)
  %y = f32[]{:T(256)} parameter(1)
  ROOT %sum = f32[]{:T(256)} add(%x, %y)
}

%never_called (a: f32[1000]) -> f32[1000] {
  %a = f32[1000]{0} parameter(0)
  ROOT %lost = f32[1000]{0} all-reduce(%a), to_apply=%add
}

%wrapped (p: bf16[4,4]) -> bf16[32,4] {
  %p = bf16[4,4]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gathered = bf16[32,4]{1,0:T(8,128)(2,1)} all-gather(%p), dimensions={0}
}

%body (s: (s32[], f32[6])) -> (s32[], f32[6]) {
  %s = (s32[]{:T(256)}, f32[6]{0:T(256)}) parameter(0)
  %value = f32[6]{0:T(256)} get-tuple-element(%s), index=1
  %turned = f32[6]{0:T(256)} collective-permute(%value), source_target_pairs={{0,1}}
  ROOT %out = (s32[]{:T(256)}, f32[6]{0:T(256)}) tuple(%value, %turned)
}

%condition (s: (s32[], f32[6])) -> pred[] {
  %s = (s32[]{:T(256)}, f32[6]{0:T(256)}) parameter(0)
  ROOT %go = pred[]{:T(512)} constant(true)
}

ENTRY %main.1_spmd (g: f32[8], h: bf16[3,5]) -> f32[8] {
  %g = f32[8]{0:T(256)} parameter(0)
  %h = bf16[3,5]{1,0:T(8,128)(2,1)} parameter(1)
  %both = (f32[8]{0:T(256)}, /*index=1*/bf16[3,5]{1,0:T(8,128)(2,1)}) all-reduce(%g, %h), \
channel_id=1, to_apply=%add, metadata={op_name="jit(run)/dot (general)"}, backend_config={"a":"b(c"}
  %begun = (f32[8]{0}, f32[8]{0}) all-reduce-start(f32[8]{0:T(256)} %g), to_apply=%add
  %ended = f32[8]{0} all-reduce-done(%begun)
  %state = (s32[]{:T(256)}, f32[6]{0:T(256)}) tuple(%ended)
  %loop = (s32[]{:T(256)}, f32[6]{0:T(256)}) while(%state), condition=%condition, body=%body
  %parted = ((bf16[4,4]), bf16[32,4], u32[]) async-start(%h), calls=%wrapped
  %on = ((bf16[4,4]), bf16[32,4], u32[]) async-update(%parted), calls=%wrapped
  %joined = bf16[32,4] async-done(%on), calls=%wrapped
  %elsewhere = f32[8]{0} custom-call(%ended), custom_call_target="a", called_computations={%absent}
  ROOT %last = f32[8]{0} add(%ended, %ended)
}
"""


def exchanged(text):
    program = hlo.parse(text)
    return collectives(program, loops.runs(program))


def test_every_exchange_that_happens_counts_once():
    found = [
        (row["kind"], row["count"], row["operand_bytes"]) for row in by_kind(exchanged(PROGRAM))
    ]
    assert found == [
        ("all-reduce", 2, 32 + 30 + 32),
        ("all-gather", 1, 32),
        ("collective-permute", 1, 24),
    ]
    assert [row["in_loops"] for row in by_kind(exchanged(PROGRAM))] == [0, 0, 1]


def test_loops_are_counted():
    (loop,) = loops.runs(hlo.parse(PROGRAM)).loops
    assert loop.body == "body" and loop.trips is None


def test_where_an_exchange_comes_from_is_told():
    largest = max(exchanged(PROGRAM), key=lambda one: one.operand_bytes)
    assert largest.op_name == "jit(run)/dot (general)" and largest.operand_bytes == 62


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("f32[8,128]{1,0:T(8,128)}", 4096),
        ("(bf16[3,5]{1,0:T(8,128)(2,1)}, /*index=1*/pred[7])", 37),
        ("f8e4m3fn[16]", 16),
        ("s4[3]", 2),
        ("token[]", 0),
        ("f32[<=4]", 16),
    ],
)
def test_bytes_of_a_type(text, size):
    assert hlo.nbytes(text) == size


def test_a_real_program_is_read():
    import jax
    import jax.numpy as jnp

    mesh = jax.make_mesh((len(jax.devices()),), ("data",))
    spread = jax.NamedSharding(mesh, jax.P("data"))
    batch = jax.ShapeDtypeStruct((16, 3), jnp.float32, sharding=spread)
    compiled = jax.jit(lambda x: x.sum(0)).lower(batch).compile()
    found = [(one.kind, one.operand_bytes, one.times) for one in exchanged(compiled.as_text())]
    assert found == [("all-reduce", 12, 1)] * (len(jax.devices()) > 1)
