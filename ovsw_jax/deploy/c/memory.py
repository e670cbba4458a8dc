"""Where each value lies: in lines of scratch memory, or in an arena where lives do not meet."""

import dataclasses
from collections.abc import Mapping, Sequence

from ovsw_jax.deploy.c.steps import Program, Step, size_of

ALIGNMENT = 16


@dataclasses.dataclass(frozen=True)
class Group:
    """Steps that are computed together, line by line: what they give each other stays in cache.

    Attributes:
      steps: in their order.
      count: of lines; 0 if there is one step, which gives all of its result at once.
      local: where the line of a value lies in the scratch memory, for those that no other group
        takes.
      scratch: where the own memory of each step lies there, by its result.
      size: bytes of scratch memory.
    """

    steps: tuple[Step, ...]
    count: int
    local: Mapping[int, int]
    scratch: Mapping[int, int]
    size: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """The groups of a network, and where values lie between them.

    Attributes:
      groups: in their order.
      places: where each value lies in the arena; not the input, the output, and local values.
      size: bytes of values in the arena, behind which is the scratch memory.
      scratch: bytes of it.
    """

    groups: tuple[Group, ...]
    places: Mapping[int, int]
    size: int
    scratch: int


def planned(program: Program, output: int) -> Plan:
    """Where the values of a program lie."""
    groups = _groups(program)
    group_of = {step.result: n for n, group in enumerate(groups) for step in group}
    ends: dict[int, int] = {}
    kept = {program.root(output)}
    for n, group in enumerate(groups):
        for step in group:
            for value in map(program.root, (*step.whole, *step.lines)):
                ends[value] = n
                if group_of.get(value) != n:
                    kept.add(value)
    laid = tuple(_with_scratch(program, group, kept) for group in groups)
    inside = kept - {0, program.root(output)}
    owners = _owners(program, groups, inside, ends)
    lives: dict[int, tuple[int, int, int, int]] = {}
    for value in sorted(inside):
        owner = owners.get(value, value)
        first = group_of[owner]
        lives[owner] = (
            owner,
            size_of(program.values[owner]),
            first,
            max(lives[owner][3] if owner in lives else first, ends.get(value, first)),
        )
    of_owners, size = _placed(list(lives.values()))
    places = {value: of_owners[owners.get(value, value)] for value in inside}
    return Plan(laid, places, size, max((group.size for group in laid), default=0))


def _owners(
    program: Program, groups: Sequence[Sequence[Step]], inside: set[int], ends: Mapping[int, int]
) -> dict[int, int]:
    """The values whose memory others take over, line by line, where these end: as behind a skip."""
    owners: dict[int, int] = {}
    for number, group in enumerate(groups):
        made = {step.result for step in group}
        whole = {program.root(value) for step in group for value in step.whole}
        last_use = {program.root(v): n for n, step in enumerate(group) for v in step.lines}
        free = [
            v
            for v in last_use
            if v in inside - made - whole and ends[v] == number and group[0].count
        ]
        for n, step in enumerate(group):
            for value in free:
                same = size_of(program.values[value]) == size_of(program.values[step.result])
                # The line is read before another one takes its place: not by the same call.
                if step.result in inside and same and last_use[value] < n:
                    owners[step.result] = owners.get(value, value)
                    free.remove(value)
                    break
    return owners


def _groups(program: Program) -> list[list[Step]]:
    groups: list[list[Step]] = []
    made: set[int] = set()
    for step in program.steps:
        whole = {program.root(value) for value in step.whole}
        joins = groups and step.count and groups[-1][0].count == step.count and not whole & made
        if not joins:
            groups.append([])
            made = set()
        groups[-1].append(step)
        made.add(step.result)
    return groups


def _with_scratch(program: Program, steps: Sequence[Step], kept: set[int]) -> Group:
    lives = []
    for n, step in enumerate(steps):
        if step.scratch:
            lives.append((-step.result, step.scratch, n, n))
        if step.result not in kept:
            uses = [i for i, s in enumerate(steps) if step.result in map(program.root, s.lines)]
            line = size_of(program.values[step.result]) // max(1, step.count)
            lives.append((step.result, line, n, max(uses, default=n)))
    places, size = _placed(lives)
    local = {value: place for value, place in places.items() if value > 0}
    scratch = {-value: place for value, place in places.items() if value < 0}
    return Group(tuple(steps), steps[0].count, local, scratch, size)


def _placed(lives: Sequence[tuple[int, int, int, int]]) -> tuple[dict[int, int], int]:
    """A place for each (value, bytes, first, last), and how many bytes they take together.

    The largest comes first, each as low as those permit that live at the same time.
    """
    places: dict[int, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # start, stop, first, last
    for value, size, first, last in sorted(lives, key=lambda life: (-life[1], life[0])):
        start = 0
        for other_start, other_stop, other_first, other_last in sorted(placed):
            if other_first <= last and first <= other_last and other_start < start + size:
                start = max(start, other_stop)
        start_of_next = -(-(start + size) // ALIGNMENT) * ALIGNMENT
        placed.append((start, start_of_next, first, last))
        places[value] = start
    return places, max((stop for _, stop, _, _ in placed), default=0)
