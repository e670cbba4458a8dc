"""A function compiled for devices that are absent."""

import contextlib
from typing import Any

import jax

import ovsw_jax as ovsw
from experiments.accelerators.targets import Platform, Target


def lower_for(target: Target, function: Any, *arguments: Any) -> Any:
    """What a jitted function asks a compiler for; nothing is run, and no array is made.

    Args:
      target: what to compile for.
      function: what `jax.jit` gave.
      *arguments: trees of `jax.ShapeDtypeStruct`, whose shardings name the target's devices.

    Returns:
      A `jax.stages.Lowered`.
    """
    with for_platform(target.platform):
        traced = function.trace(*arguments)
    return traced.lower(lowering_platforms=(target.platform,))


def compile_lowered(target: Target, lowered: Any) -> jax.stages.Compiled:
    """Compiles what `lower_for` gave for the same target."""
    compiled: jax.stages.Compiled = lowered.compile(compiler_options=target.compiler_options)
    return compiled


def compile_for(target: Target, function: Any, *arguments: Any) -> jax.stages.Compiled:
    """Both at once."""
    return compile_lowered(target, lower_for(target, function, *arguments))


def for_platform(platform: Platform) -> contextlib.AbstractContextManager[None]:
    """Layers traced within compute as on this platform, not as on the one that JAX runs on."""
    return ovsw.nn.compute_for("gpu" if platform == "cuda" else "tpu")
