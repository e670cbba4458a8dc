"""What is read of compiled programs, on texts small enough to count by hand."""
# ruff: noqa: E501  # an instruction is a line

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import flax
import optax
import pytest

import benchmarks
import ovsw_jax
from experiments.accelerators import CHIPS, Collectives, Row, kinds, open_target, platform_of, read
from experiments.accelerators.program_text import parse, shape_bytes
from experiments.accelerators.reading import read_text

# A TPU's: a convolution's fusion, a reduction, a collective in a wrapper, and a loop.
TPU = """\
HloModule jit_step, is_scheduled=true

FileNames
1 "/home/someone/ovsw_jax/nn/batch_norm.py"
2 "/home/someone/ovsw_jax/ags.py"

FunctionNames
1 "BatchNorm.__call__"
2 "_forward"
3 "scale_by_ags.<locals>.update_fn"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=1 end_column=1}
2 {file_name_id=1 function_name_id=2 line=2 end_line=2 column=1 end_column=1}
3 {file_name_id=2 function_name_id=3 line=3 end_line=3 column=1 end_column=1}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=1}


%product (param_0: bf16[4,8], param_1: bf16[8,2]) -> f32[4,2] {
  %param_0 = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %param_1 = bf16[8,2]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.1 = f32[4,2]{1,0} convolution(%param_0, %param_1), dim_labels=bf_io->bf, metadata={op_name="jit(step)/jvp()/dot_general"}
}

%sum (param_0.1: f32[4,2]) -> f32[2] {
  %param_0.1 = f32[4,2]{1,0} parameter(0)
  %zero = f32[] constant(0)
  ROOT %reduce.1 = f32[2]{0} reduce(%param_0.1, %zero), dimensions={0}, to_apply=%add, metadata={op_name="jit(step)/jvp()/reduce_sum" stack_frame_id=2}
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a, %b)
}

%wrapped (param_0.2: f32[2]) -> f32[2] {
  %param_0.2 = f32[2]{0} parameter(0)
  ROOT %all-reduce.1 = f32[2]{0} all-reduce(%param_0.2), replica_groups={{0,1}}, to_apply=%add
}

%body (carried: (s32[], f32[2])) -> (s32[], f32[2]) {
  %carried = (s32[], f32[2]{0}) parameter(0)
  %value = f32[2]{0} get-tuple-element(%carried), index=1
  %count = s32[] get-tuple-element(%carried), index=0
  %scaled = f32[2]{0} multiply(%value, %value), metadata={op_name="jit(step)/while/body/mul" stack_frame_id=3}, backend_config={"window_config":{"estimated_cycles":"30"}}
  ROOT %next = (s32[], f32[2]{0}) tuple(%count, %scaled)
}

%condition (carried.1: (s32[], f32[2])) -> pred[] {
  %carried.1 = (s32[], f32[2]{0}) parameter(0)
  %count.1 = s32[] get-tuple-element(%carried.1), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%count.1, %limit), direction=LT
}

ENTRY %main (x: bf16[4,8], w: bf16[8,2]) -> f32[2] {
  %x = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  %w = bf16[8,2]{1,0} parameter(1)
  %fusion.1 = f32[4,2]{1,0} fusion(%x, %w), kind=kOutput, calls=%product, metadata={op_name="jit(step)/jvp()/add" stack_frame_id=2}, backend_config={"window_config":{"estimated_cycles":"1000"}}
  %fusion.2 = f32[2]{0} fusion(%fusion.1), kind=kLoop, calls=%sum, metadata={op_name="jit(step)/jvp()/reduce_sum" stack_frame_id=2}, backend_config={"window_config":{"estimated_cycles":"200"}}
  %started = ((f32[2]{0}), f32[2]{0}) async-start(%fusion.2), calls=%wrapped
  %done = f32[2]{0} async-done(%started), calls=%wrapped
  %zero.1 = s32[] constant(0)
  %carry = (s32[], f32[2]{0}) tuple(%zero.1, %done)
  %loop = (s32[], f32[2]{0}) while(%carry), condition=%condition, body=%body
  ROOT %result = f32[2]{0} get-tuple-element(%loop), index=1
}
"""

# A GPU's: cuDNN's three convolutions, a gather in two halves, and branches.
GPU = """\
HloModule jit_step

%few (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %kept = f32[8]{0} bitcast(%p)
}

%many (p.1: f32[8]) -> f32[8] {
  %p.1 = f32[8]{0} parameter(0)
  %once = f32[8]{0} copy(%p.1)
  ROOT %twice = f32[8]{0} copy(%once)
}

ENTRY %main (x: f32[2,4], k: f32[4,4], which: s32[], v: f32[8]) -> f32[8] {
  %x = f32[2,4]{1,0} parameter(0)
  %k = f32[4,4]{1,0} parameter(1)
  %which = s32[] parameter(2)
  %v = f32[8]{0} parameter(3)
  %forward = (f32[2,4]{1,0}, u8[100]{0}) custom-call(%x, %k), custom_call_target="__cudnn$convForward", metadata={op_name="jit(step)/jvp()/conv_general_dilated"}
  %y = f32[2,4]{1,0} get-tuple-element(%forward), index=0
  %to-input = (f32[2,4]{1,0}, u8[0]{0}) custom-call(%y, %k), custom_call_target="__cudnn$convBackwardInput", metadata={op_name="jit(step)/transpose(jvp())/conv_general_dilated"}
  %to-kernel = (f32[4,4]{1,0}, u8[0]{0}) custom-call(%x, %y), custom_call_target="__cudnn$convBackwardFilter", metadata={op_name="jit(step)/transpose(jvp())/conv_general_dilated"}
  %gathered = (f32[8]{0}, f32[32]{0}) all-gather-start(%v), dimensions={0}
  %whole = f32[32]{0} all-gather-done(%gathered)
  ROOT %branch = f32[8]{0} conditional(%which, %v, %v), branch_computations={%few, %many}
}
"""


def totals(rows):
    """Cycles, bytes and instructions, by kind."""
    return {r.kind: (r.cycles, r.bytes, r.count) for r in rows}


def test_a_tpu_program():
    collectives, rows = read_text(TPU)
    product_bytes = 4 * 8 * 2 + 8 * 2 * 2 + 4 * 2 * 4
    assert rows[:3] == (
        Row("forward products", "add in _forward", 1, 1000, product_bytes),
        Row("batch norm", "reduce_sum in _forward", 1, 200, 4 * 2 * 4 + 2 * 4),
        Row("rules", "mul in scale_by_ags", 1, 30, 3 * 2 * 4),
    )
    # The collective in its wrapper, and the comparison of the loop's condition.
    assert totals(rows[3:]) == {"collectives": (0, 16, 1), "else": (0, 1 + 4 + 4, 1)}
    assert collectives == {"all-reduce": Collectives(1, 8)}


def test_a_gpu_program():
    collectives, rows = read_text(GPU)
    assert totals(rows) == {
        "forward products": (0, 32 + 64 + 32 + 100, 1),
        "input gradients": (0, 32 + 64 + 32, 1),
        "kernel gradients": (0, 32 + 32 + 64, 1),
        "collectives": (0, 32 + 32 + 128, 1),
        "else": (0, 2 * 64, 2),  # of the longer branch
    }
    assert collectives == {"all-gather": Collectives(1, 128)}


def compiled(text, cost):
    memory = SimpleNamespace(
        argument_size_in_bytes=100,
        temp_size_in_bytes=30,
        output_size_in_bytes=50,
        alias_size_in_bytes=40,
    )
    return SimpleNamespace(
        memory_analysis=lambda: memory, cost_analysis=lambda: cost, as_text=lambda: text
    )


@pytest.mark.parametrize(
    ("text", "cost", "moved", "flops", "cycles", "kernels"),
    [
        (TPU, {"bytes accessed": 7.0, "flops": 9.0}, 7, 9, 1230, 5),
        (GPU, None, 228 + 128 + 128 + 192 + 128, 0, 0, 6),
    ],
)
def test_a_reading(text, cost, moved, flops, cycles, kernels):
    reading = read(compiled(text, cost))
    assert reading.peak == 100 + 50 - 40 + 30
    assert (reading.moved, reading.flops) == (moved, flops)
    assert (reading.cycles, reading.kernels) == (cycles, kernels)
    sums = reading.by_kind().values()
    assert [sum(numbers) for numbers in zip(*sums, strict=True)][::2] == [cycles, kernels]


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ("b01f_01io->b01f", "input gradients"),
        ("b01f_01oi->b01f", "input gradients"),
        ("f01b_i01o->01bf", "kernel gradients"),
        ("fb_io->bf", "kernel gradients"),
    ],
)
def test_gradients_by_their_labels(labels, kind):
    text = TPU.replace("bf_io->bf", labels).replace("jvp()/dot_general", "transpose(jvp())/dot")
    assert read_text(text)[1][0].kind == kind


def test_frames_are_innermost_first():
    program = parse(TPU)
    (frames,) = {program.frames(i) for i in program.computations["sum"].values()} - {()}
    file = "/home/someone/ovsw_jax/nn/batch_norm.py"
    assert frames == (f"{file}:_forward", f"{file}:BatchNorm.__call__")


def functions():
    """All functions of the sources that have a place, as a frame names them."""
    library, plain, of_flax, of_optax = (
        Path(package.__file__).parent for package in (ovsw_jax, benchmarks, flax, optax)
    )
    others = (
        plain / "plain_jax.py",
        of_flax / "nnx" / "nn" / "normalization.py",
        of_optax / "transforms" / "_adding.py",
        of_optax / "_src" / "update.py",
    )
    for file in (*library.rglob("*.py"), *others):
        for node in ast.walk(tree := ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                classes = (n for n in tree.body if isinstance(n, ast.ClassDef) and node in n.body)
                owner = next((f"{found.name}." for found in classes), "")
                yield f"{file}:{owner}{node.name}"


def test_every_pattern_of_a_place_fits_a_function():
    found = [kinds._PACKAGE.sub("", function) for function in functions()]
    for patterns in kinds._PLACES.values():
        for pattern in patterns:
            assert any(re.search(pattern, function) for function in found), pattern


@pytest.mark.parametrize(
    ("function", "place"),
    [
        ("/signs/ovsw_jax/nn/batch_norm.py:_forward", "batch norm"),
        ("/signs/ovsw_jax/ags.py:scale_by_ags.<locals>.update_fn", "rules"),
        ("/signs/ovsw_jax/nn/_kernels/arithmetic.py:sample_deviation", "sample statistics"),
        ("/signs/ovsw_jax/nn/_kernels/arithmetic.py:_affine", None),
        ("/signs/ovsw_jax/nn/_kernels/words.py:pack", "signs"),
        ("/signs/benchmarks/plain_jax.py:_hardtanh", None),
        ("/site-packages/flax/nnx/nn/normalization.py:_normalize", "batch norm"),
        ("/site-packages/optax/_src/transform.py:scale", "optimizer"),
    ],
)
def test_places(function, place):
    assert kinds.place_of(function) == place


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[]", 4),
        ("pred[3]", 3),
        ("s4[3]", 2),
        ("f8e4m3fn[5]", 5),
        ("(f32[2]{0}, /*index=1*/u16[3]{0:T(128)S(1)})", 14),
        ("token[]", 0),
    ],
)
def test_bytes_of_a_shape(shape, size):
    assert shape_bytes(shape) == size


@pytest.mark.parametrize(
    "name", ["v5e", "v5e:2", "v9:2x2", "h100:0", "h100:", "h100:2x2", "", "V5e:2x2"]
)
def test_an_unknown_target_is_refused(name):
    with pytest.raises(ValueError, match=r"is unknown: use .* v5e:2x2, v5p:2x2x1, v6e:2x2, h100:8"):
        platform_of(name)


def test_known_targets():
    assert [platform_of(chip.example) for chip in CHIPS.values()] == ["tpu", "tpu", "tpu", "cuda"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("v5e:2x2", r"needs its compiler, the package libtpu, .*: pip install \"jax\[tpu\]\""),
        ("h100", r"the package jax_plugins.xla_cuda12, .*: pip install jax-cuda12-plugin"),
    ],
)
def test_a_compiler_that_is_not_installed_is_named(name, says, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match=says):
        open_target(name)
