"""The C source of a network: constants, kernels, and one function for each group of steps."""

import re
from collections.abc import Mapping
from string import Template

from ovsw_jax.deploy.c.amalgamation import kernels, names_of, path_headers, source
from ovsw_jax.deploy.c.memory import Group, Plan
from ovsw_jax.deploy.c.steps import C_TYPES, SIZES, Program, Step, size_of


class Source:
    """The C of a program with a plan.

    Attributes:
      program: the steps.
      output: the value that is the network's.
      plan: where values lie.
      name: of the network.
    """

    def __init__(self, program: Program, output: int, plan: Plan, name: str):
        """Of a program whose output is a value."""
        self.program, self.output, self.plan, self.name = program, output, plan, name

    def text(self, about: str, ending: str) -> str:
        """The whole file: a comment at its top, and what stands behind the tables."""
        used = {kernel for step in self.program.steps for kernel in step.kernels}
        shared, own = kernels(used)
        groups = [self._group(n, group) for n, group in enumerate(self.plan.groups)]
        steps = "\n".join(part for part, _ in groups if part)
        calls = "\n".join(call for _, call in groups)
        run = f"static TARGET void run(const Memory *m)\n{{\n{calls}\n}}\n"
        paths = path_headers()
        names = names_of(paths, own, steps, run)
        renames = "\n".join(f"#define {name} NAME({name}, PATH)" for name in names)
        parts = [
            f"/* {about} */",
            "#ifndef PATH",
            f'#include "{self.name}.h"',
            source("begin.h"),
            f"#define THREADS {self.name.upper()}_THREADS",
            f"#define SCRATCH_START {self.plan.size}",
            f"#define SCRATCH_BYTES {self.plan.scratch}",
            source("threads.h"),
            shared,
            "/* --- constants */",
            *self.program.constants.definitions.values(),
            ending,
            filled(source("dispatch.c"), {"renames": renames}),
            "#else /* PATH: what follows is compiled once for each path */",
            paths,
            own,
            "/* --- the network */",
            steps,
            run,
            source("end_of_path.h"),
            "#endif",
        ]
        return "\n\n".join(part.strip() for part in parts) + "\n"

    def _group(self, number: int, group: Group) -> tuple[str, str]:
        """A function that computes one line, and its call; or calls that need no function."""
        abouts = ", ".join(dict.fromkeys(step.about for step in group.steps))
        statements = "\n".join(f"    {self._statement(step, group)}" for step in group.steps)
        if not group.count:
            return "", f"    /* {abouts} */\n{statements}"
        scratch = ", unsigned char *scratch" if group.size else ""
        line = ", int y" if group.count > 1 else ""
        head = f"static TARGET void step_{number}(const Memory *m{scratch}{line})"
        arguments = "m" + (", SCRATCH" if scratch else "") + (", y" if line else "")
        call = f"step_{number}({arguments});"
        if line:
            call = f"EACH_LINE({group.count})\n        {call}"
        return f"/* {abouts} */\n{head}\n{{\n{statements}\n}}\n", f"    {call}"

    def _statement(self, step: Step, group: Group) -> str:
        several = group.count > 1
        places = {
            "y": self._pointer(step.result, group, several, constant=False),
            "line": "y" if several else "0",
            "scratch": f"(scratch + {group.scratch.get(step.result, 0)})",
        }
        for n, value in enumerate(step.whole):
            places[f"v{n}"] = self._pointer(value, group, False)
        for n, value in enumerate(step.lines, len(step.whole)):
            places[f"v{n}"] = self._pointer(value, group, several)
        code = re.sub(r"\$(\d+)", r"${v\1}", step.code)
        return Template(code).substitute(places)

    def _pointer(self, value: int, group: Group, by_line: bool, constant: bool = True) -> str:
        root = self.program.root(value)
        kind = C_TYPES[self.program.values[value].kind]
        pointer = f"const {kind} *" if constant else f"{kind} *"
        if root in group.local:
            return f"({pointer})(scratch + {group.local[root]})"
        if root == 0:
            start = "(m->input)"
        elif root == self.program.root(self.output):
            start = "(m->output)"
        else:
            start = f"(m->arena + {self.plan.places[root]})"
        if not by_line:
            return f"({pointer}){start}"
        line = size_of(self.program.values[value]) // group.count // SIZES[kind]
        return f"({pointer}){start} + (size_t)y * {line}"


def filled(text: str, values: Mapping[str, str]) -> str:
    """A template with a value for each @key@ that it has."""
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text
