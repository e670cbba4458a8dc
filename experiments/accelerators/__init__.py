"""Programs compiled for accelerators that are absent, and what their compilers say of them.

Nothing here runs on a device: every number is an estimate by a compiler.
"""

from experiments.accelerators.compiling import (
    compile_for,
    compile_lowered,
    for_platform,
    lower_for,
)
from experiments.accelerators.kinds import KINDS
from experiments.accelerators.reading import Collectives, Reading, Row, read
from experiments.accelerators.targets import CHIPS, Chip, Platform, Target, open_target, platform_of

__all__ = [
    "CHIPS",
    "KINDS",
    "Chip",
    "Collectives",
    "Platform",
    "Reading",
    "Row",
    "Target",
    "compile_for",
    "compile_lowered",
    "for_platform",
    "lower_for",
    "open_target",
    "platform_of",
    "read",
]
