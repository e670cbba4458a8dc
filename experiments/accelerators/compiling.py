"""A function compiled for devices that are absent."""

import contextlib
from typing import Any

import jax

import ovsw_jax as ovsw
from experiments.accelerators.targets import Platform, Target


def compile_for(target: Target, function: Any, *arguments: Any) -> jax.stages.Compiled:
    """Compiles a jitted function; nothing is run, and no array is made.

    Args:
      target: what to compile for.
      function: what `jax.jit` gave.
      *arguments: trees of `jax.ShapeDtypeStruct`, whose shardings name the target's devices.
    """
    with for_platform(target.platform):
        traced = function.trace(*arguments)
    lowered = traced.lower(lowering_platforms=(target.platform,))
    return lowered.compile(compiler_options=target.compiler_options)


def for_platform(platform: Platform) -> contextlib.AbstractContextManager[None]:
    """Layers traced within compute as on this platform, not as on the one that JAX runs on."""
    return ovsw.nn.compute_for("gpu" if platform == "cuda" else "tpu")
