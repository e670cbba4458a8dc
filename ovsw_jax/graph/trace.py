"""One trace of a Flax NNX model: its program, and which part of it belongs to which layer.

`ovsw.summary` counts with it, and `ovsw.inspect` observes what layers take and return. Another use
that it is made for:

- Another form of the network: layers are nodes, the edges are the variables that one call returns
  and another takes, and equations of no such layer, or of a layer that is unknown, are in between.
  `Trace.variables` tells parameters, which can be made constants, from the inputs of the call.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, Var, jaxprs_in_params

from ovsw_jax.graph.call import Call
from ovsw_jax.graph.marked_layers import Observer, layer_of, mark_of, marked_copy
from ovsw_jax.graph.module_tree import Path, at, modules, places

Place = tuple[int, ...]


class Equation(NamedTuple):
    """One operation of a program, or of a program within it.

    Fields:
      operation: the JaxprEqn.
      layer: path of the innermost layer whose public method makes it; None if there is none.
      times: how often it runs: once per step of a scan. A loop whose number of steps is unknown
        counts as one step.
      place: its index in the program. For a program within an operation, the place of that
        operation comes first, then which of its programs, then the index in it. `place[:-1]` is
        the place of the program itself, and `()` that of the whole program.
    """

    operation: Any
    layer: Path | None
    times: int
    place: Place


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One call of a layer.

    Attributes:
      layer: path of the layer.
      place: of the program in which the call is; see `Trace.program_at`.
      times: how often that program runs.
      inputs: arrays that the layer takes, each a variable or literal of that program, by their
        name in the call: `0` is the first argument, `1/image` an entry of the second, and `mask` a
        keyword argument. Arguments that are modules are not included.
      outputs: arrays that the layer returns; `""` is the name of a single one.
    """

    layer: Path
    place: Place
    times: int
    inputs: dict[str, Any]
    outputs: dict[str, Any]


Branches = Sequence[Sequence[Equation]]


def all_branches(branches: Branches) -> Iterable[Equation]:
    """The equations of all branches of a conditional."""
    return itertools.chain.from_iterable(branches)


@dataclasses.dataclass(frozen=True)
class Trace:
    """A call of a model as a program.

    Attributes:
      program: a jaxpr that `jax.core.eval_jaxpr` can run. It takes the arrays of the model, then
        those of the call, and returns the arrays in the model's result. Its operations `name`
        whose results are unused mark the calls of layers.
      layers: modules by path, in the order of assignment, without `nnx.List` and `nnx.Dict`.
      variables: inputs of the program that are the model's, by path: the arrays of each Variable,
        and each array in no Variable. A Variable that several modules hold is at all its paths.
      inputs: inputs of the program that are the call's, by their name in the call.
      held: arrays of the model, as the program takes them.
    """

    program: ClosedJaxpr
    layers: Mapping[Path, nnx.Module]
    variables: Mapping[Path, tuple[Var, ...]]
    inputs: Mapping[str, Var]
    held: tuple[Any, ...] = ()

    def equations(
        self, conditional: Callable[[Branches], Iterable[Equation]] = all_branches
    ) -> Iterator[Equation]:
        """All operations, those of programs within the program included.

        The program in a Pallas kernel is omitted, since it is for one tile.

        Args:
          conditional: selects from the branches of a conditional.
        """
        paths = list(self.layers)

        def of(jaxpr: Jaxpr, scope: str, times: int, place: Place) -> Iterator[Equation]:
            for index, operation in enumerate(jaxpr.eqns):
                inside, here = f"{scope}/{operation.source_info.name_stack}", (*place, index)
                layer = layer_of(inside)
                path = None if layer is None else paths[layer]
                yield Equation(operation, path, times, here)
                name = operation.primitive.name
                if name == "pallas_call":
                    continue
                runs = times * (operation.params["length"] if name == "scan" else 1)
                inner = [
                    of(body, inside, runs, (*here, number))
                    for number, body in enumerate(jaxprs_in_params(operation.params))
                ]
                if name == "cond":
                    yield from conditional([list(branch) for branch in inner])
                else:
                    yield from itertools.chain.from_iterable(inner)

        return of(self.program.jaxpr, "", 1, ())

    def calls(
        self, conditional: Callable[[Branches], Iterable[Equation]] = all_branches
    ) -> list[LayerCall]:
        """Calls of layers, in the order in which they begin.

        Calls of other methods than `__call__` are not included, nor are calls that neither take
        nor return an array. Calls of which the model uses only the derivative may be missing.

        Args:
          conditional: selects from the branches of a conditional.
        """
        paths, found = list(self.layers), dict[Any, LayerCall]()
        for operation, _, times, place in self.equations(conditional):
            mark = mark_of(operation)
            if mark is None:
                continue
            call = found.setdefault(
                (place[:-1], mark.layer, mark.call),
                LayerCall(paths[mark.layer], place[:-1], times, {}, {}),
            )
            arrays = call.inputs if mark.is_input else call.outputs
            arrays[mark.name] = operation.invars[0]
        return list(found.values())

    def program_at(self, place: Place) -> Jaxpr:
        """The program at a place; `()` is that of the whole program."""
        jaxpr = self.program.jaxpr
        for index, number in zip(place[::2], place[1::2], strict=True):
            jaxpr = list(jaxprs_in_params(jaxpr.eqns[index].params))[number]
        return jaxpr


def explained_trace(network: nnx.Module, call: Call, observer: Observer | None = None) -> Trace:
    """As `trace`; what a user's network raises becomes a ValueError that says how to call it."""
    try:
        return trace(network, call, observer)
    except Exception as error:
        given = [f"{x.dtype.name} array of shape {x.shape}" for x in call.abstract.values()]
        single = list(call.arrays) == ["0"]
        inputs = (
            f"one {given[0]}"
            if single
            else ", ".join(f"{place} ({x})" for place, x in zip(call.arrays, given, strict=True))
        )
        flags = "".join(f", {place}={value!r}" for place, value in call.flags.items())
        raise ValueError(
            f"{type(network).__name__} can't be called with {inputs}{flags}: "
            f"{type(error).__name__}: {error}\nGive the input_shape of a whole batch, such as "
            "(1, 224, 224, 3), and the dtype that the network takes; or all of its inputs as "
            "arrays or jax.ShapeDtypeStructs, and flags by their names. Only a positional input "
            "may be given by its shape alone: by name, that is jax.ShapeDtypeStruct(shape, dtype)."
        ) from error


def trace(model: nnx.Module, call: Call, observer: Observer | None = None) -> Trace:
    """Traces a call of a model, which is not run and does not change.

    Args:
      model: the network, in training or evaluation mode; its arrays may be abstract.
      call: its arguments.
      observer: computes numbers in each call of a layer; `ovsw_jax.graph.observed` finds them.
    """
    layers = {
        path: module
        for path, module in modules(model)
        if not path or not isinstance(module, nnx.List | nnx.Dict)
    }
    graph, state = nnx.split(marked_copy(model, layers, observer), graph=True)
    flat: list[tuple[Any, Any]] = list(nnx.to_flat_state(state))

    def forward(held: list[Any], arrays: list[jax.Array]) -> list[jax.Array]:
        paths = (path for path, _ in flat)
        state = nnx.from_flat_state(list(zip(paths, held, strict=True)))
        leaves = jax.tree.leaves(call.of(nnx.merge(graph, state), arrays))
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

    held = [leaf for _, leaf in flat]
    abstract = jax.tree.map(_abstract, held)
    program = jax.make_jaxpr(forward)(abstract, list(call.abstract.values()))
    invars, paths = iter(program.jaxpr.invars), places(model)
    variables: dict[Path, tuple[Var, ...]] = {}
    for path, leaf in flat:
        arrays = tuple(itertools.islice(invars, len(jax.tree.leaves(leaf))))
        # Flax gives one path of each, which can differ from the one through its layer's path.
        shared = paths.get(at(model, path), []) if isinstance(leaf, nnx.Variable) else []
        variables |= dict.fromkeys([path, *shared], arrays)
    inputs = dict(zip(call.arrays, invars, strict=True))
    return Trace(program, layers, variables, inputs, tuple(jax.tree.leaves(held)))


def _abstract(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "shape") else x
