"""C of frozen networks: the same bits on every path that this processor has, and no surprises."""

import ctypes
import dataclasses
import re
import subprocess

import c_paths
import frozen_reader
import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from c_paths import Compiled
from flax import nnx
from frozen_networks import Drawn, designs, exact, images, same
from hypothesis import given
from hypothesis import strategies as st

import ovsw_jax as ovsw
from ovsw_jax.deploy.graph import Signs

pytestmark = pytest.mark.skipif(c_paths.COMPILER is None, reason="there is no C compiler")
RNGS = nnx.Rngs(0)
CASES = max(1, hypothesis.settings().max_examples // 20)


class Several(nnx.Module):
    """Drawn networks side by side, which takes one compilation."""

    channels = 33

    def __init__(self, all_designs):
        self.designs = nnx.static(all_designs)
        self.networks = nnx.List([Drawn(design) for design in all_designs])

    def __call__(self, x):
        pairs = zip(self.networks, self.designs, strict=True)
        return jnp.concatenate([net(x[..., : d["channels"]]) for net, d in pairs], -1)


@hypothesis.settings(max_examples=CASES, phases=[hypothesis.Phase.generate])
@given(drawn=st.lists(designs(), min_size=4, max_size=4))
def test_random_networks_give_the_same_bits_on_each_path(drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    model = exact(Several(drawn), drawn[0]["seed"])
    x = images((2, *Drawn.size, Several.channels), drawn[0]["seed"])
    frozen = ovsw.deploy.freeze(model, x.shape)
    frozen.save(folder / "net.safetensors")
    want = frozen_reader.evaluate(folder / "net.safetensors", x)
    assert same(want, frozen(x))
    compiled = Compiled(frozen, folder)
    for path in compiled.paths:
        assert same(want, compiled(path, x)), path


class Pieces(nnx.Module):
    """What the drawn networks do not have: other ranks, moves of all kinds, grouped products."""

    def __init__(self):
        self.conv = nnx.Conv(3, 8, (3, 3), padding="CIRCULAR", rngs=RNGS)
        self.depthwise = nnx.Conv(8, 16, (3, 3), feature_group_count=8, use_bias=False, rngs=RNGS)
        self.norm = nnx.BatchNorm(16, rngs=RNGS)
        self.reflect = ovsw.nn.BinaryConv(16, 100, (3, 3), padding="REFLECT", scale=None, rngs=RNGS)
        self.norm2 = nnx.BatchNorm(100, rngs=RNGS)
        self.dense = ovsw.nn.BinaryDense(100, 6, scale=None, use_bias=True, rngs=RNGS)
        self.one = ovsw.nn.BinaryConv(6, 40, 3, padding="CAUSAL", scale=None, rngs=RNGS)
        self.wide = ovsw.nn.BinaryConv(
            40, 70, 3, padding="SAME", kernel_dilation=2, scale=None, rngs=RNGS
        )
        self.flat = ovsw.nn.BinaryDense(280, 4, scale="learned", rngs=RNGS)

    def __call__(self, x):
        x = nnx.leaky_relu(self.conv(x), 0.25)
        x = self.norm(self.depthwise(jnp.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0)))))
        x = jnp.concatenate([x[..., 8:], -x[..., :8]], -1)
        x = self.norm2(nnx.max_pool(self.reflect(x), (3, 3), strides=(2, 2)))
        x = self.dense(x.transpose(0, 2, 1, 3))
        y = self.wide(self.one(x[:, ::-1, 0]))
        z = self.flat(y.reshape(len(y), -1)[:, :280]) + jnp.where(x.min((1, 2)) > 0, 1, -1)[:, :4]
        return jnp.clip(x.max((1, 2))[:, :4] - 2 * jnp.squeeze(y[:, -1:, 3:7], 1) + z, -99)


def test_other_layers_and_the_python_between_them_give_the_same_bits(tmp_path):
    x = images((2, 9, 8, 3))
    model = exact(Pieces())
    frozen = ovsw.deploy.freeze(model, x.shape)
    want = np.asarray(nnx.jit(lambda m, x: m(x))(model, jnp.asarray(x)))
    assert same(want, frozen(x))
    compiled = Compiled(frozen, tmp_path)
    for path in compiled.paths:
        assert same(want, compiled(path, x)), path


class Widths(nnx.Module):
    """Enough filters and channels for all that a path does at once, and borders of all kinds."""

    def __init__(self):
        more = {"scale": None, "rngs": RNGS}
        self.stem = nnx.Conv(3, 112, (3, 3), strides=1, padding=2, use_bias=False, rngs=RNGS)
        self.down = ovsw.nn.BinaryConv(112, 200, (3, 3), strides=2, padding=1, **more)
        self.norm = ovsw.nn.BatchNorm(200, rngs=RNGS)
        self.next = ovsw.nn.BinaryConv(200, 16, (5, 3), padding="SAME", **more)
        self.small = ovsw.nn.BinaryConv(16, 80, (3, 3), padding="SAME", **more)
        self.real = ovsw.nn.BinaryConv(80, 48, (2, 2), input_sign=None, **more)

    def __call__(self, x):
        x = self.next(self.norm(self.down(self.stem(x))))
        return self.real(nnx.relu(self.small(x)))[:, :4, :8].mean((1, 2))


@pytest.fixture(scope="module")
def widths(tmp_path_factory):
    x = images((2, 16, 22, 3))
    model = exact(Widths())
    frozen = ovsw.deploy.freeze(model, x.shape)
    return x, np.asarray(frozen(x)), Compiled(frozen, tmp_path_factory.mktemp("net"))


@pytest.mark.parametrize("path", c_paths.PATHS)
def test_wide_layers_give_the_same_bits(path, widths):
    x, want, compiled = widths
    if not compiled.has(path):
        pytest.skip(f"this processor has no path {path}")
    assert same(want, compiled(path, x))


# The ones of each word, without VPOPCNTDQ.
EMULATED = """
#include <immintrin.h>
#define _mm512_popcnt_epi32 counted
static __attribute__((target("avx512f"))) __m512i counted(__m512i x)
{
    unsigned words[16];
    _mm512_storeu_si512(words, x);
    for (int i = 0; i < 16; ++i)
        words[i] = (unsigned)__builtin_popcount(words[i]);
    return _mm512_loadu_si512(words);
}
"""


@pytest.mark.long
def test_all_of_the_path_with_vpopcntdq_but_its_one_instruction(widths, tmp_path):
    x, want, compiled = widths
    if not compiled.has("avx512bw"):
        pytest.skip("this processor has no AVX-512")
    emulated = Compiled(compiled.frozen, tmp_path, before=EMULATED)
    assert same(want, emulated("avx512", x))


class Activated(nnx.Module):
    def __init__(self):
        self.layer_norm, self.rms_norm = nnx.LayerNorm(6, rngs=RNGS), nnx.RMSNorm(6, rngs=RNGS)
        self.one = nnx.Conv(6, 6, 3, padding="REFLECT", rngs=RNGS)

    def __call__(self, x):
        y = self.layer_norm(x) + self.rms_norm(x)
        for function in (nnx.gelu, nnx.silu, nnx.elu, nnx.softplus, nnx.sigmoid, nnx.tanh):
            y = y + function(x)
        y = y + nnx.hard_swish(x) + nnx.relu6(x) + nnx.selu(x) + nnx.gelu(x, approximate=False)
        y = nnx.log_softmax(y) + nnx.softmax(self.one(y[:, ::-1]))
        return jnp.sqrt(1 + jnp.pad(y, ((0, 0), (0, 0), (1, 2)), constant_values=0.5) ** 2)


def test_usual_activations_and_norms(monkeypatch):
    monkeypatch.setenv("CC", f"{c_paths.COMPILER} -O0")
    x = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)
    frozen = ovsw.deploy.freeze(Activated(), x.shape)
    run = ovsw.deploy.compile(frozen)
    np.testing.assert_allclose(run(x), frozen(x), rtol=2e-5, atol=2e-5)
    assert same(run(x)[1], run(x[1]))
    assert same(run(x.astype(np.float64)), run(x))
    assert run(x[:0]).shape == (0, 5, 9)
    assert run.path in c_paths.PATHS


# --- the files


@pytest.fixture(scope="module")
def cats(tmp_path_factory):
    """A network with names and preprocessing, and the folder of its C."""
    frozen = ovsw.deploy.freeze(
        Flat(),
        (1, 2, 2, 3),
        classes=['a "cat"??/', "Straße\n", "*/ owl\\"],
        preprocessing=ovsw.deploy.Preprocessing((0.1, 0.2, 0.3), (0.5, 0.25, 2.0)),
    )
    folder = tmp_path_factory.mktemp("cats")
    frozen.to_c(folder / "new", name="cats")
    return frozen, folder / "new"


class Flat(nnx.Module):
    def __init__(self):
        self.dense = ovsw.nn.BinaryDense(12, 3, rngs=RNGS)

    def __call__(self, x):
        return self.dense(x.reshape(len(x), -1))


class Calls(nnx.Module):
    def __init__(self, function):
        self.inner = _Inner(function)

    def __call__(self, x):
        return self.inner(x)


class _Inner(nnx.Module):
    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


def built(*command, cwd):
    made = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "warning" not in (made.stdout + made.stderr).lower()


def test_the_example_classifies_an_image(cats):
    frozen, folder = cats
    built("make", "CFLAGS=-O0 -Werror", f"CC={c_paths.COMPILER}", cwd=folder)
    pixels = np.random.default_rng(0).integers(0, 256, frozen.input_shape, np.uint8)
    (folder / "image").write_bytes(pixels.tobytes())
    said = subprocess.run([folder / "cats", "image"], cwd=folder, capture_output=True, check=True)
    scores, name = said.stdout.decode().split("\n", 1)
    given = frozen.preprocessing
    x = (pixels / 255 - np.array(given.mean)) / np.array(given.std)
    want = np.asarray(frozen(x[None]))[0]
    np.testing.assert_allclose([float(s) for s in scores.split()], want, rtol=1e-4)
    assert name == frozen.classes[want.argmax()] + "\n"
    wrong = subprocess.run([folder / "cats", "Makefile"], cwd=folder, capture_output=True)
    assert wrong.returncode == 1
    assert b"does not hold 12 bytes" in wrong.stderr


def test_the_header_is_for_cpp_too_and_says_the_sizes(cats):
    _, folder = cats
    (folder / "x.cpp").write_text(
        '#include "cats.h"\n#include "cats.h"\n'
        "static unsigned char arena[CATS_ARENA_BYTES];\n"
        'static_assert(CATS_INPUT_SIZE == 12 && CATS_OUTPUT_SIZE == 3 && CATS_CLASSES == 3, "");\n'
        "int main() { return arena[0] + (cats_classes[0] == nullptr); }\n"
    )
    built(c_paths.COMPILER, "-x", "c++", "-Wall", "-Werror", "-fsyntax-only", "x.cpp", cwd=folder)


def test_the_table_of_memory_adds_up(widths):
    _, _, compiled = widths
    rows = [
        [int(cell) for cell in line.split("|")[2:5]]
        for line in (compiled.folder / "memory.md").read_text().splitlines()[8:]
    ]
    *parts, total = rows
    kernels = sum(
        t.bits.size if isinstance(t, Signs) else t.nbytes
        for t in compiled.frozen.graph.tensors.values()
    )
    assert sum(row[0] for row in parts) == total[0] >= kernels
    assert max(row[1] for row in parts) <= total[1]
    assert max(row[2] for row in parts) == total[2]
    assert compiled.library.net_arena_bytes() == total[1] + total[2]


def test_names_in_a_file_put_nothing_into_the_c(cats, tmp_path):
    """A frozen network may come from a stranger."""
    graph = cats[0].graph
    evil = 'a*/ int evil; /*"\n#error evil\n$y ${line} @name@ @bits@ |'
    nodes = tuple(dataclasses.replace(node, layer=evil) for node in graph.nodes)
    frozen = ovsw.deploy.FrozenNetwork(
        dataclasses.replace(graph, nodes=nodes), classes=[evil] * 3, source={"network": evil}
    )
    compiled = Compiled(frozen, tmp_path, "-O0", "-DOVSW_PATH=1")
    x = images((1, 2, 2, 3))
    assert same(frozen(x), compiled("portable", x))
    names = (ctypes.c_char_p * 3).in_dll(compiled.library, "net_classes")
    assert [name.decode() for name in names] == [evil] * 3


def test_only_what_is_used_is_written(cats):
    text = (cats[1] / "cats.c").read_text()
    assert "binary_as_" in text
    for absent in ("float_as_", "packed_as_", "max_pool", "move_words", "exponential", "malloc"):
        assert absent not in text


@pytest.mark.parametrize(
    ("function", "shape", "said"),
    [
        (
            nnx.Conv(2, 2, (1, 1, 1), rngs=RNGS),
            (1, 3, 3, 3, 2),
            "'inner/function' can't be written in C: the operation conv with 3 spatial axes",
        ),
        (
            lambda x: x.transpose(0, 7, 6, 5, 4, 3, 2, 1),
            (1, 2, 2, 2, 2, 2, 2, 2),
            "can't be written in C: the operation transpose of 7 axes",
        ),
    ],
)
def test_what_c_has_no_kernel_for_is_refused_by_name(function, shape, said, tmp_path):
    frozen = ovsw.deploy.freeze(Calls(function), shape)
    with pytest.raises(ValueError, match=re.escape(said)):
        frozen.to_c(tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("name", ["Net", "1st", "a-b", "", "int", "a b", "é", 3, None])
def test_names_that_c_does_not_take_are_refused(name, tmp_path, cats):
    with pytest.raises(ValueError, match="name="):
        cats[0].to_c(tmp_path, name=name)


def test_compiling_says_what_is_missing(cats, monkeypatch):
    frozen, _ = cats
    with pytest.raises(TypeError, match="is no frozen network"):
        ovsw.deploy.compile("net")
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(RuntimeError, match="'no-such-compiler' did not start"):
        ovsw.deploy.compile(frozen)
    monkeypatch.setenv("CC", f"{c_paths.COMPILER} --no-such-option")
    with pytest.raises(RuntimeError, match="the C compiler failed: "):
        ovsw.deploy.compile(frozen)
    monkeypatch.setenv("CC", f"{c_paths.COMPILER} -O0")
    run = ovsw.deploy.compile(frozen)
    with pytest.raises(ValueError, match=r"takes \(batch, 2, 2, 3\), or \(2, 2, 3\) for one"):
        run(np.zeros((2, 3)))
    with pytest.raises(TypeError, match="no real numbers"):
        run(np.zeros((2, 2, 3), complex))
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="there is no cc, gcc or clang"):
        ovsw.deploy.compile(frozen)


@pytest.mark.parametrize(
    "function", [lambda x: x, lambda x: x.reshape(len(x), 6), lambda x: x[:, ::-1]]
)
def test_a_network_that_only_moves_its_input(function, tmp_path):
    frozen = ovsw.deploy.freeze(Calls(function), (1, 2, 3))
    x = images((1, 2, 3))
    compiled = Compiled(frozen, tmp_path)
    assert same(frozen(x), compiled(compiled.paths[0], x))
