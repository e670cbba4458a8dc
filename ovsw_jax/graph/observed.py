"""Runs a program and gathers the numbers that observers marked in it, also within loops.

A program computes in a scan, a branch or a compiled function what its results don't hold. Here each
of these runs once more as itself, with the observed numbers among its results.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxprs_in_params

from ovsw_jax.graph.marked_layers import Observation, observation_of


class Observed(NamedTuple):
    """One number of one call.

    Fields:
      total: its sum over all runs of the call, such as the steps of a scan. Axes of `vmap` stay.
      times: how often the call ran.
    """

    total: jax.Array
    times: jax.Array


Found = dict[Observation, Observed]


def observed(program: ClosedJaxpr, arrays: Sequence[Any]) -> Found:
    """All observed numbers of a run.

    Args:
      program: with marks of `marked_layers.mark_observed`.
      arrays: its inputs.

    Raises:
      ValueError: if a layer is called in a program whose runs can't be told, such as a `shard_map`.
    """
    return _run(program.jaxpr, program.consts, arrays)[1]


def by_layer(found: Found) -> dict[int, list[dict[str, Observed]]]:
    """What was observed in each call, by the number of the layer."""
    calls: dict[tuple[int, int], dict[str, Observed]] = {}
    for mark, one in found.items():
        calls.setdefault((mark.layer, mark.call), {})[mark.name] = one
    layers: dict[int, list[dict[str, Observed]]] = {}
    for (layer, _), of_call in calls.items():
        layers.setdefault(layer, []).append(of_call)
    return layers


def _run(jaxpr: Jaxpr, consts: Sequence[Any], arrays: Sequence[Any]) -> tuple[list[Any], Found]:
    """Results of a program, and what was observed."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arrays), strict=True))

    def value_of(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    found: Found = {}
    for equation in jaxpr.eqns:
        given = [value_of(atom) for atom in equation.invars]
        if (mark := observation_of(equation)) is not None:
            once = Observed(given[0].astype(jnp.float32), jnp.ones((), jnp.float32))
            _add(found, {mark: once})
        if _observes(equation):
            results, inside = _run_inside(equation, given)
            _add(found, inside)
        else:
            results = _evaluated(jaxpr, equation, values)
        values |= dict(zip(equation.outvars, results, strict=True))
    return [value_of(atom) for atom in jaxpr.outvars], found


def _add(found: Found, more: Mapping[Observation, Observed]) -> None:
    """Adds to what was found; a function that is called twice has the same marks twice."""
    for mark, one in more.items():
        found[mark] = jax.tree.map(jnp.add, found[mark], one) if mark in found else one


def _observes(equation: Any) -> bool:
    """Whether a program within an operation has marks."""
    return any(
        observation_of(inner) is not None or _observes(inner)
        for jaxpr in jaxprs_in_params(equation.params)
        for inner in jaxpr.eqns
    )


def _evaluated(jaxpr: Jaxpr, equation: Any, values: Mapping[Any, Any]) -> list[Any]:
    """The results of one operation, by JAX's own evaluation."""
    taken = list(dict.fromkeys(a for a in equation.invars if not isinstance(a, Literal)))
    alone = jaxpr.replace(
        constvars=(),
        invars=taken,
        outvars=equation.outvars,
        eqns=[equation],
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    return list(jax.core.eval_jaxpr(alone, (), *(values[variable] for variable in taken)))


def _run_inside(equation: Any, given: Sequence[Any]) -> tuple[Sequence[Any], Found]:
    """The same as `_run`, for one operation with programs in it."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return _run_scan(params, given)
    if name == "while":
        return _run_while(params, given)
    if name == "cond":
        return _run_cond(params, given)
    if name in _CALLS_OF_A_PROGRAM:
        (program,) = (x for x in params.values() if isinstance(x, Jaxpr | ClosedJaxpr))
        return _run(*_opened(program), given)
    raise ValueError(
        f"a layer is called within {name}, whose inner arrays can't be observed: inspect the "
        "network outside of it, or call the inspection within."
    )


# Operations that run the one program in them as it is: `jit`, `remat`, derivatives of one's own.
_CALLS_OF_A_PROGRAM = {
    "jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2",
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
}  # fmt: skip


def _opened(program: Jaxpr | ClosedJaxpr) -> tuple[Jaxpr, Sequence[Any]]:
    if isinstance(program, ClosedJaxpr):
        return program.jaxpr, program.consts
    return program, ()


def _run_scan(params: Mapping[str, Any], given: Sequence[Any]) -> tuple[Sequence[Any], Found]:
    body, consts = _opened(params["jaxpr"])
    fixed, carried = params["num_consts"], params["num_carry"]

    def step(carry: Sequence[Any], xs: Sequence[Any]) -> tuple[Any, Any]:
        results, found = _run(body, consts, [*given[:fixed], *carry, *xs])
        return results[:carried], (results[carried:], found)

    carry, (ys, found) = lax.scan(
        step,
        list(given[fixed : fixed + carried]),
        list(given[fixed + carried :]),
        length=params["length"],
        reverse=params["reverse"],
    )
    return [*carry, *ys], jax.tree.map(lambda x: jnp.sum(x, axis=0), found)


def _run_while(params: Mapping[str, Any], given: Sequence[Any]) -> tuple[Sequence[Any], Found]:
    test, test_consts = _opened(params["cond_jaxpr"])
    body, body_consts = _opened(params["body_jaxpr"])
    first, second = params["cond_nconsts"], params["body_nconsts"]
    of_test, of_body = given[:first], given[first : first + second]

    def proceed(state: tuple[list[Any], Any]) -> Any:
        return jax.core.eval_jaxpr(test, test_consts, *of_test, *state[0])[0]

    def run(carry: Sequence[Any]) -> tuple[list[Any], Found]:
        return _run(body, body_consts, [*of_body, *carry])

    def step(state: tuple[list[Any], Any]) -> tuple[list[Any], Any]:
        carry, found = run(state[0])
        return carry, jax.tree.map(jnp.add, state[1], found)

    carry = list(given[first + second :])
    nothing = _zeros(jax.eval_shape(run, carry)[1])
    return lax.while_loop(proceed, step, (carry, nothing))


def _run_cond(params: Mapping[str, Any], given: Sequence[Any]) -> tuple[Sequence[Any], Found]:
    index, *operands = given

    def branch(program: ClosedJaxpr) -> Callable[..., tuple[list[Any], Found]]:
        return lambda *arrays: _run(*_opened(program), arrays)

    branches = [branch(program) for program in params["branches"]]
    nothing: Found = {}
    for run in branches:
        nothing |= _zeros(jax.eval_shape(run, *operands)[1])

    def filled(run: Callable[..., tuple[list[Any], Found]]) -> Callable[..., Any]:
        def of_all(*arrays: Any) -> tuple[list[Any], Found]:
            results, found = run(*arrays)
            return results, nothing | found

        return of_all

    return lax.switch(index.astype(jnp.int32), [filled(run) for run in branches], *operands)


def _zeros(found: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), found)
