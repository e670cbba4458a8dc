"""How much memory each part of a network takes in C, as a table in Markdown."""

import re

from ovsw_jax.deploy.c.memory import Group, Plan
from ovsw_jax.deploy.c.steps import Program, size_of


def memory_table(program: Program, plan: Plan, title: str) -> str:
    """One row for each group of steps, in their order."""
    lives = _lives(program, plan)
    counted: set[str] = set()
    rows = []
    for number, group in enumerate(plan.groups):
        alive = {place: size for first, last, place, size in lives if first <= number <= last}
        about = ", ".join(dict.fromkeys(step.about for step in group.steps))
        rows.append((about, _constants(program, group, counted), sum(alive.values()), group.size))
    lines = [
        f"# Memory of {title}, in bytes",
        "",
        "Weights and other constants are in read-only memory. The arena holds the values that are",
        "alive at the same time, and scratch memory for one line. Code, stack, input and output",
        "come to it; `gcc -fstack-usage` says the stack of each function.",
        "",
        "| layers and operations | constants | values alive | scratch |",
        "| --- | --- | --- | --- |",
        *(f"| {about} | {flash} | {alive} | {scratch} |" for about, flash, alive, scratch in rows),
        f"| all | {sum(program.constants.sizes.values())} | {plan.size} | {plan.scratch} |",
    ]
    return "\n".join(lines) + "\n"


def _lives(program: Program, plan: Plan) -> list[tuple[int, int, int, int]]:
    """First and last group, place and bytes of each value in the arena."""
    lives: dict[int, tuple[int, int, int, int]] = {}
    for number, group in enumerate(plan.groups):
        for step in group.steps:
            for value in map(program.root, (step.result, *step.whole, *step.lines)):
                if value in plan.places:
                    first = lives[value][0] if value in lives else number
                    size = size_of(program.values[value])
                    lives[value] = first, number, plan.places[value], size
    return list(lives.values())


def _constants(program: Program, group: Group, counted: set[str]) -> int:
    """Bytes of the constants that no group before has taken."""
    names = {n for step in group.steps for n in re.findall(r"\b[a-z]+\d+\b", step.code)}
    new = (names & program.constants.sizes.keys()) - counted
    counted |= new
    return sum(program.constants.sizes[name] for name in new)
