"""One trace of a Flax NNX model: its program, and which part of it belongs to which layer.

`ovsw.summary` counts with it. What else can be built on it: statistics of what goes into a layer,
by a program whose results are `LayerCall.inputs`; or another form of the network, of the equations
of each layer, and of calls as nodes whose edges are the variables that they have in common.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, Var, jaxprs_in_params

from ovsw_jax.graph.call import Call
from ovsw_jax.graph.marked_layers import layer_of, mark_of, marked_copy
from ovsw_jax.graph.module_tree import Path, at, modules, places

Place = tuple[int, ...]


class Equation(NamedTuple):
    """One operation of a program, or of a program within it.

    Fields:
      operation: the JaxprEqn.
      layer: path of the innermost layer whose public method it comes from.
      times: how often it runs: in the body of a scan, its number of steps. Of a loop whose number
        of steps is not known, one step is taken.
      place: index in the program. In a program within another, that follows the place of the
        operation with the inner program and the number of the inner program in it. So
        `place[:-1]` tells the program: `()` for the whole one.
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
      program: place of the program that has the call; see `Trace.program_at`.
      times: how often that program runs.
      inputs: arrays that the layer was called with, each a variable or literal of that program, by
        their place in the call: `0` is the first argument, `1/image` an entry of the second, and
        `mask` one given by name. An argument without arrays, or that is a module, has none.
      outputs: arrays that it returned; `""` is the place of a single one.
    """

    layer: Path
    program: Place
    times: int
    inputs: dict[str, Any]
    outputs: dict[str, Any]


Branches = Sequence[Sequence[Equation]]


def all_branches(branches: Branches) -> Iterable[Equation]:
    """The equations of each branch of a conditional."""
    return itertools.chain.from_iterable(branches)


@dataclasses.dataclass(frozen=True)
class Trace:
    """A call of a model as a program without effects, which `jax.core.eval_jaxpr` can run.

    Its inputs are the arrays of the model and those of the call; its outputs are the arrays in the
    model's result. Operations called `name` whose results nobody uses are marks of calls.

    Attributes:
      program: the program.
      layers: modules by path, in the order of assignment; an `nnx.List` or `nnx.Dict` is none.
      variables: inputs of the program that are arrays of a Variable, or of an array in none, by
        path. A Variable that modules share is at each of its paths.
      inputs: inputs of the program that are arrays of the call, by their place in it.
    """

    program: ClosedJaxpr
    layers: Mapping[Path, nnx.Module]
    variables: Mapping[Path, tuple[Var, ...]]
    inputs: Mapping[str, Var]

    def equations(
        self, conditional: Callable[[Branches], Iterable[Equation]] = all_branches
    ) -> Iterator[Equation]:
        """All operations, those of programs within the program included.

        What a Pallas kernel does is left out: its program is for one tile.

        Args:
          conditional: chooses from the branches of a conditional.
        """
        paths = list(self.layers)

        def of(jaxpr: Jaxpr, scope: str, times: int, place: Place) -> Iterator[Equation]:
            for index, operation in enumerate(jaxpr.eqns):
                inside, here = f"{scope}/{operation.source_info.name_stack}", (*place, index)
                number = layer_of(inside)
                layer = None if number is None else paths[number]
                yield Equation(operation, layer, times, here)
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

        Only calls of the layer itself count, not those of its other methods. A call that neither
        takes nor returns an array is left out, and so may be one of which the model needs the
        derivative alone.

        Args:
          conditional: chooses from the branches of a conditional.
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
            arrays[mark.place] = operation.invars[0]
        return list(found.values())

    def program_at(self, place: Place) -> Jaxpr:
        """The program at a place, `()` being the whole one."""
        jaxpr = self.program.jaxpr
        for index, number in zip(place[::2], place[1::2], strict=True):
            jaxpr = list(jaxprs_in_params(jaxpr.eqns[index].params))[number]
        return jaxpr


def trace(model: nnx.Module, call: Call) -> Trace:
    """Traces a call of a model, which stays as it is; nothing is computed.

    Args:
      model: the network, in training or evaluation as it is set; its arrays may be abstract.
      call: what it is called with.
    """
    layers = {
        path: module
        for path, module in modules(model)
        if not path or not isinstance(module, nnx.List | nnx.Dict)
    }
    graph, state = nnx.split(marked_copy(model, layers), graph=True)
    flat: list[tuple[Any, Any]] = list(nnx.to_flat_state(state))

    def forward(held: list[Any], arrays: list[jax.Array]) -> list[jax.Array]:
        paths = (path for path, _ in flat)
        state = nnx.from_flat_state(list(zip(paths, held, strict=True)))
        leaves = jax.tree.leaves(call.of(nnx.merge(graph, state), arrays))
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

    held = jax.tree.map(_abstract, [leaf for _, leaf in flat])
    program = jax.make_jaxpr(forward)(held, list(call.abstract.values()))
    invars, paths = iter(program.jaxpr.invars), places(model)
    variables: dict[Path, tuple[Var, ...]] = {}
    for path, leaf in flat:
        arrays = tuple(itertools.islice(invars, len(jax.tree.leaves(leaf))))
        # Flax has one path for each, which need not be one where the walk looks.
        shared = paths.get(at(model, path), []) if isinstance(leaf, nnx.Variable) else []
        variables |= dict.fromkeys([path, *shared], arrays)
    return Trace(program, layers, variables, dict(zip(call.arrays, invars, strict=True)))


def _abstract(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "shape") else x
