"""The forward and backward graph of a binarised convolution, read from its jaxpr (as Fig. 7).

JAX traces a `BinaryConv` and its gradients into a list of equations. Each equation goes to one
node, by rules that ask four things of it:

- its *phase*: forward if the output needs it, else backward;
- its *part*: the function of the library that it came from, by its traceback;
- its *operand*: on which of the inputs x and W its forward values depend;
- whether it is *frozen*: behind a `stop_gradient`, with no other way to the inputs.

Equations with equal answers are one node; edges follow from the variables. A broadcast or a change
of dtype belongs to what it is of, and an equation of constants to what uses it. A straight-through
sign of the weights has an identity for a gradient, which is no equation at all; it gets a node all
the same.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import ovsw_jax as ovsw

Phase = Literal["input", "forward", "backward", "output"]

_LIBRARY = Path(ovsw.__file__).parent
_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call")
# Functions of the library, outermost first, to the part of the layer that they are.
_PARTS = {
    "normalize_sample": "normalise",
    "standardized_scale": "factor",
    "convolve": "convolve",
    "convolve_signs": "convolve",
    "_affine": "scale",
}
_RECASTS = ("broadcast_in_dim", "convert_element_type")
_LABELS = {
    ("forward", "normalise", "x", True): ("deviation", "σ, of each sample"),
    ("forward", "normalise", "x", False): ("normalise", "x̂ = x / σ"),
    ("forward", "sign", "x", False): ("sign", "a = sign x̂"),
    ("forward", "sign", "W", False): ("sign", "w = sign W"),
    ("forward", "factor", "W", True): ("factor", "α, of each filter"),
    ("forward", "convolve", "x W", False): ("convolve", "z = a ∗ w"),
    ("forward", "scale", "x W", False): ("scale", "y = z α"),
    ("backward", "scale", "W", False): ("scale", "dz = dy α"),
    ("backward", "convolve", "W", False): ("input gradient", "da = dz ∗ flipped w"),
    ("backward", "convolve", "x", False): ("weight gradient", "dw = a ∗ dz"),
    ("backward", "normalise", "x", False): ("normalise", "dx = dx̂ / σ"),
}
# What each sign does in the backward pass, by its docstring.
_GRADIENTS = {
    "approx_sign": ("window", "{1} max(2 - 2|{0}|, 0)"),
    "clipped_ste_sign": ("window", "{1} where |{0}| ≤ 1"),
    "ste_sign": ("straight-through", "d{0} = {1}"),
    "sign": ("zero", "d{0} = 0"),
}


@dataclass(frozen=True)
class Node:
    """One box of the drawing.

    Attributes:
      key: its name among the nodes.
      phase: "input" and "output" are arrays; "forward" and "backward" hold equations.
      title: what it does, in a word or two.
      detail: its formula; for arrays, shape and dtype.
      frozen: behind a stop_gradient.
      primitives: of its equations, in order; empty for arrays and for an identity.
    """

    key: str
    phase: Phase
    title: str
    detail: str
    frozen: bool = False
    primitives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """Nodes in order of computation, and edges as pairs of their keys.

    Attributes:
      nodes: see `Node`.
      edges: (source, target), sorted, none twice.
      equations: number of equations in the jaxpr, calls inlined.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    equations: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Equation:
    primitive: str
    inputs: tuple[int, ...]  # variables; literals are left out
    outputs: tuple[int, ...]
    functions: tuple[tuple[str, str], ...]  # (file, function) of the library, outermost first


class Answer(NamedTuple):
    """What the rules say of an equation."""

    phase: Phase
    part: str
    operand: str
    frozen: bool

    @property
    def key(self) -> str:
        """The node of equations with this answer."""
        return "/".join((*self[:3], *(["frozen"] * self.frozen)))


def trace(conv: ovsw.nn.BinaryConv, x_shape: Sequence[int]) -> Graph:
    """The graph of `conv` in training mode for an input of the given shape.

    Other parameters than the latent kernel are constants here.
    """
    graph_and_states: Any = nnx.split(conv, nnx.PathContains("latent_kernel"), ...)
    graph, latent_state, rest = graph_and_states
    latent = nnx.to_pure_dict(latent_state)
    x = jax.ShapeDtypeStruct(tuple(x_shape), latent["latent_kernel"].dtype)

    def forward(latent: Any, x: jax.Array) -> jax.Array:
        layer: Any = nnx.merge(graph, latent, rest)
        return layer(x)

    def both(latent: Any, x: jax.Array, dy: jax.Array) -> tuple[Any, ...]:
        y, transpose = jax.vjp(forward, latent, x)
        return (y, *transpose(dy))

    dy = jax.eval_shape(forward, latent, x)
    closed = jax.make_jaxpr(both)(latent, x, dy)
    numbers = itertools.count()
    names = dict(zip(("W", "x", "dy"), numbers, strict=False))
    equations, results = _flatten(closed.jaxpr, list(names.values()), numbers, ())
    outputs = dict(zip(("y", "dW", "dx"), results, strict=True))
    avals = dict(zip((*names, *outputs), (*closed.in_avals, *closed.out_avals), strict=True))
    signs: Any = {"x": conv.input_sign, "W": conv.kernel_sign}  # a layer with both
    return _collapse(list(equations), names, outputs, avals, signs)


def _flatten(
    jaxpr: Any, inputs: Sequence[int | None], numbers: Iterator[int], functions: Any
) -> tuple[list[_Equation], list[int | None]]:
    """Equations with calls inlined and variables numbered anew: calls may share one jaxpr."""
    known: dict[Any, int | None] = dict(zip(jaxpr.invars, inputs, strict=True))
    known |= dict.fromkeys(jaxpr.constvars)

    def look_up(variable: Any) -> int | None:
        return None if hasattr(variable, "val") else known[variable]

    flat: list[_Equation] = []
    for equation in jaxpr.eqns:
        origin = functions or _library_functions(equation)
        arguments = [look_up(v) for v in equation.invars]
        inner = [p for p in equation.params.values() if hasattr(p, "jaxpr")]
        if equation.primitive.name in _CALLS and len(inner) == 1:
            inlined, results = _flatten(inner[0].jaxpr, arguments, numbers, origin)
            flat += inlined
            known |= dict(zip(equation.outvars, results, strict=True))
            continue
        outputs = [next(numbers) for _ in equation.outvars]
        known |= dict(zip(equation.outvars, outputs, strict=True))
        used = tuple(a for a in arguments if a is not None)
        flat.append(_Equation(equation.primitive.name, used, tuple(outputs), origin))
    return flat, [look_up(v) for v in jaxpr.outvars]


def _library_functions(equation: Any) -> tuple[tuple[str, str], ...]:
    frames = equation.source_info.traceback.frames
    return tuple(
        (Path(f.file_name).stem, f.function_name)
        for f in reversed(frames)
        if Path(f.file_name).is_relative_to(_LIBRARY)
    )


def _part(equation: _Equation) -> str:
    for file, function in equation.functions:
        if file in ("signs", "words") or function == "pad":
            return "sign"  # as numbers, with a border, or packed as bits
    for _, function in equation.functions:
        if function in _PARTS:
            return _PARTS[function]
    return equation.functions[-1][1] if equation.functions else equation.primitive


class _Facts:
    """What the rules ask about variables."""

    def __init__(
        self, equations: Sequence[_Equation], names: Mapping[str, int], y: int | None
    ) -> None:
        self.sources = {number: frozenset([name]) for name, number in names.items()}
        self.frozen: set[int] = set()
        for e in equations:
            depends = frozenset[str]().union(*(self.sources[i] for i in e.inputs))
            self.sources |= dict.fromkeys(e.outputs, depends)
            if e.primitive == "stop_gradient" or self.frozen.issuperset(e.inputs):
                self.frozen.update(e.outputs)
        self.needed = {y}
        for e in reversed(equations):
            if self.needed.intersection(e.outputs):
                self.needed.update(e.inputs)


def _collapse(
    equations: Sequence[_Equation],
    names: Mapping[str, int],
    outputs: Mapping[str, int | None],
    avals: Mapping[str, Any],
    signs: Mapping[str, Callable[[jax.Array], jax.Array]],
) -> Graph:
    facts = _Facts(equations, names, outputs["y"])
    made_by: dict[int, str] = {number: name for name, number in names.items()}
    groups: dict[str, list[str]] = {}
    answers: dict[str, Answer] = {}
    edges: set[tuple[str, str]] = set()
    for e, answer in zip(equations, _answers(equations, facts), strict=True):
        groups.setdefault(answer.key, []).append(e.primitive)
        answers[answer.key] = answer
        edges |= {(made_by[i], answer.key) for i in e.inputs}
        made_by |= dict.fromkeys(e.outputs, answer.key)
    nodes = [_array(name, "input", avals[name]) for name in names]
    for key, primitives in groups.items():
        answer = answers[key]
        title, detail = _label(answer, signs)
        nodes.append(Node(key, answer.phase, title, detail, answer.frozen, tuple(primitives)))
    for name, number in outputs.items():
        source = "constant" if number is None else made_by[number]
        if name == "dW" and _is_straight_through(signs["W"]):
            identity = Answer("backward", "sign", "W", False)
            nodes.append(Node(identity.key, "backward", *_label(identity, signs)))
            edges.add((source, identity.key))
            source = identity.key
        nodes.append(_array(name, "output", avals[name]))
        edges.add((source, name))
    kept = tuple(sorted((a, b) for a, b in edges if a != b))
    return Graph(tuple(nodes), kept, len(equations))


def _answers(equations: Sequence[_Equation], facts: _Facts) -> list[Answer]:
    """What makes equations one node, for each of them."""
    answers = [_answer(e, facts) for e in equations]
    maker = {o: i for i, e in enumerate(equations) for o in e.outputs}
    for i, e in enumerate(equations):
        if e.primitive in _RECASTS and e.inputs and e.inputs[0] in maker:
            answers[i] = answers[maker[e.inputs[0]]]
    user = {v: i for i, e in reversed(list(enumerate(equations))) for v in e.inputs}
    for i, e in reversed(list(enumerate(equations))):
        users = [user[o] for o in e.outputs if o in user]
        if users and not any(facts.sources[o] for o in e.outputs):
            answers[i] = answers[min(users)]
    return answers


def _answer(equation: _Equation, facts: _Facts) -> Answer:
    forward = any(o in facts.needed for o in equation.outputs)
    sources = [facts.sources[i] for i in equation.inputs]
    operand = frozenset[str]().union(*(s for s in sources if "dy" not in s))
    part = _part(equation)
    if part == "scale" and not forward:
        operand = frozenset("W")  # that of the factor; a sample's own is 1, or tells of a NaN
    return Answer(
        "forward" if forward else "backward",
        part,
        " ".join(sorted(operand, reverse=True)),
        forward and facts.frozen.issuperset(equation.outputs),
    )


def _label(
    answer: Answer, signs: Mapping[str, Callable[[jax.Array], jax.Array]]
) -> tuple[str, str]:
    phase, part, operand, _ = answer
    if phase == "backward" and part == "sign" and operand in signs:
        name = _name(signs[operand])
        title, detail = _GRADIENTS.get(name, (name, ""))
        return title, detail.format(*{"x": ("x̂", "da"), "W": ("W", "dw")}[operand])
    return _LABELS.get(answer, (part, operand))


def _name(sign: Callable[[jax.Array], jax.Array]) -> str:
    return getattr(sign, "__name__", "sign")


def _is_straight_through(sign: Callable[[jax.Array], jax.Array]) -> bool:
    """Whether the cotangent comes back as it is, as the same variable."""

    def backward(x: jax.Array, cotangent: jax.Array) -> Any:
        return jax.vjp(sign, x)[1](cotangent)

    jaxpr = jax.make_jaxpr(backward)(jnp.ones(2), jnp.ones(2)).jaxpr
    return jaxpr.outvars[0] is jaxpr.invars[1]


def _array(name: str, phase: Phase, aval: Any) -> Node:
    shape = "×".join(map(str, aval.shape))
    return Node(name, phase, name, f"{shape}\n{aval.dtype}")
