"""Walks through the program of a network, and writes down what it computes of its input.

What depends on no input is a constant. All constants are computed by one compiled program: the
reader runs while JAX traces it, so that what the network computes of its parameters is traced, and
what it computes of its input is written down.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from ovsw_jax.graph.marked_layers import layer_of


class CannotFreezeError(ValueError):
    """A network has a part that no graph expresses."""


class Result(NamedTuple):
    """A number in the list of nodes, and what it is in JAX: shape with the batch, and dtype."""

    number: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Refused(NamedTuple):
    """What can't be expressed. It is an error only where the network needs it."""

    why: str


class Constant(NamedTuple):
    """A number in the list of constants."""

    number: int


@dataclasses.dataclass
class RawNode:
    """An operation whose constants are not known yet: it takes numbers of results, or those."""

    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]
    layer: str


_FEW = 8
Value = Any  # a Result, a Refused, or an array, which is a constant
# Gives the results of an operation, from its parameters and its inputs.
Handler = Callable[["Reader", Any, Sequence[Value]], Any]


class Reader:
    """The state of reading: nodes and constants so far."""

    def __init__(self, paths: Sequence[str], handlers: Mapping[str, Handler]):
        """Starts with nothing read.

        Args:
          paths: of the layers, by their number.
          handlers: for each primitive of JAX, what writes it down.
        """
        self.paths, self.handlers = paths, handlers
        self.nodes: list[RawNode] = []
        self.constants: list[Any] = []
        self.output = 0
        self.scope = ""

    @property
    def layer(self) -> str:
        """Path of the layer whose operation is read."""
        number = layer_of(self.scope)
        return "" if number is None else self.paths[number]

    def run(
        self, jaxpr: Jaxpr, consts: Sequence[Any], given: Sequence[Value], scope: str
    ) -> list[Value]:
        """Reads a program; gives its results."""
        known: dict[Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
        known.update(zip(jaxpr.invars, given, strict=True))

        def value(atom: Any) -> Value:
            return atom.val if isinstance(atom, Literal) else known[atom]

        for operation in jaxpr.eqns:
            inside = f"{scope}/{operation.source_info.name_stack}"
            self.scope = inside
            inputs = [value(x) for x in operation.invars]
            results = self._read(jaxpr, operation, inputs, inside)
            known.update(zip(operation.outvars, results, strict=True))
        return [value(x) for x in jaxpr.outvars]

    def _read(
        self, jaxpr: Jaxpr, operation: Any, inputs: list[Value], scope: str
    ) -> Sequence[Value]:
        name = operation.primitive.name
        if name in _CALLS:
            return self._call(operation.params[_CALLS[name]], inputs, scope)
        unknown = [x for x in inputs if isinstance(x, Result | Refused)]
        if name == "cond" and not isinstance(inputs[0], Result | Refused):
            branch = self._branch(operation, inputs[0])
            if branch is not None:
                return self._call(branch, inputs[1:], scope)
        if not unknown:
            if name == "platform_index":
                return [_PlatformIndex(operation.params["platforms"])]
            return self._constants_of(jaxpr, operation, inputs)
        if name == "scan":
            return self._scan(operation, inputs, scope)
        count = len(operation.outvars)
        refused = next((x for x in unknown if isinstance(x, Refused)), None)
        if refused is None:
            try:
                results = self._handled(operation, name, inputs)
                return results if isinstance(results, list) else [results]
            except CannotFreezeError as error:
                refused = Refused(str(error))
        return [refused] * count

    def _constants_of(self, jaxpr: Jaxpr, operation: Any, inputs: list[Value]) -> Sequence[Value]:
        """Traced, but for a few numbers, which a slice may need to know."""
        pairs = zip(operation.invars, inputs, strict=True)
        given = {atom: value for atom, value in pairs if not isinstance(atom, Literal)}
        alone = jaxpr.replace(
            constvars=[],
            invars=list(given),
            outvars=list(operation.outvars),
            eqns=[operation],
            debug_info=jaxpr.debug_info.with_unknown_names(),
        )
        few = all(math.prod(v.aval.shape) <= _FEW for v in operation.outvars)
        now = few and not any(isinstance(x, jax.core.Tracer) for x in inputs)
        with jax.ensure_compile_time_eval() if now else contextlib.nullcontext():
            return jax.core.eval_jaxpr(alone, (), *given.values())

    def _handled(self, operation: Any, name: str, inputs: Sequence[Value]) -> Any:
        if name not in self.handlers:
            raise self.refusal(f"the operation {name}", _REMEDIES.get(name, ""))
        return self.handlers[name](self, operation, inputs)

    def _call(self, program: Any, inputs: Sequence[Value], scope: str) -> list[Value]:
        if isinstance(program, ClosedJaxpr):
            return self.run(program.jaxpr, program.consts, inputs, scope)
        return self.run(program, (), inputs, scope)

    def _branch(self, operation: Any, index: Any) -> Any:
        """The branch that is taken, where that is known: of platforms, the one for all others."""
        branches = operation.params["branches"]
        if isinstance(index, _PlatformIndex):
            return branches[index.of_all_others()]
        return None

    def _scan(self, operation: Any, inputs: list[Value], scope: str) -> list[Value]:
        """Unrolled: the parameters of one step are those of one layer of a stack."""
        params = operation.params
        # By ranks, as the names of parameters that say so differ between versions of JAX.
        step = params["jaxpr"].jaxpr
        carried = sum(_same_rank(operation.outvars, step.outvars))
        fixed = sum(_same_rank(operation.invars, step.invars)) - carried
        consts, carry = inputs[:fixed], inputs[fixed : fixed + carried]
        stacked = inputs[fixed + carried :]
        if any(isinstance(x, Result | Refused) for x in stacked):
            return [Refused(str(self.refusal("a scan along an axis of its input", "")))] * len(
                operation.outvars
            )
        order = range(params["length"])
        rows: list[list[Value]] = []
        for index in reversed(order) if params["reverse"] else order:
            here = [x[index] for x in stacked]
            results = self._call(params["jaxpr"], [*consts, *carry, *here], scope)
            carry = results[:carried]
            rows.append(results[carried:])
        self.scope = scope
        if params["reverse"]:
            rows.reverse()
        return [*carry, *(self._stacked(column) for column in zip(*rows, strict=True))]

    def _stacked(self, column: Sequence[Value]) -> Value:
        if any(isinstance(x, Result | Refused) for x in column):
            return Refused(str(self.refusal("a scan that gives a result of each step", "")))
        return jnp.stack(column)

    def refusal(self, what: str, remedy: str = "") -> CannotFreezeError:
        """The error for a part that can't be expressed."""
        where = f"layer {self.layer!r}" if self.layer else "the network itself"
        return CannotFreezeError(
            f"{where} can't be frozen: {what} has no form in the graph.{' ' * bool(remedy)}{remedy}"
        )

    def emit(self, op: str, like: Result, *inputs: Value, **attributes: Any) -> Result:
        """Writes an operation down; its result has shape and dtype of `like`."""
        refs = tuple(self._ref(x) for x in inputs)
        self.nodes.append(RawNode(op, refs, attributes, self.layer))
        return like._replace(number=len(self.nodes))

    def _ref(self, value: Value) -> Any:
        if isinstance(value, Result):
            return value.number
        self.constants.append(jnp.asarray(value))
        return Constant(len(self.constants) - 1)

    def finish(self, results: Sequence[Value]) -> None:
        """Notes which result is the network's."""
        self.scope = ""
        if len(results) != 1:
            raise self.refusal(
                f"a result of {len(results)} arrays", "Freeze a module that returns one of them."
            )
        (result,) = results
        if isinstance(result, Refused):
            raise CannotFreezeError(result.why)
        if not isinstance(result, Result):
            raise self.refusal("a result that does not depend on the input")
        if not jnp.issubdtype(result.dtype, jnp.floating):
            raise self.refusal(
                f"a result of {result.dtype}", "Freeze a module that returns the logits."
            )
        self.output = result.number


def _same_rank(outer: Sequence[Any], inner: Sequence[Any]) -> list[bool]:
    """For each variable, whether a step takes or gives all of it, and not one row."""
    return [len(a.aval.shape) == len(b.aval.shape) for a, b in zip(outer, inner, strict=True)]


class _PlatformIndex(NamedTuple):
    platforms: Any

    def of_all_others(self) -> int:
        return next(i for i, names in enumerate(self.platforms) if names is None)


# Programs within the program that are read as a part of it, and the parameter that holds them.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}

_REMEDIES = {
    "sign": "jnp.sign gives 0 at 0, and a bit can't: use ovsw.nn.sign.",
    "while": "The number of steps must be known: use a scan.",
    "cond": "A branch that depends on values can't be taken ahead of time: use jnp.where.",
    "argmax": "Freeze the network up to its logits.",
    "cumsum": "Write it as a product with a constant matrix.",
    "gather": "Take slices instead of single elements by their index.",
}
