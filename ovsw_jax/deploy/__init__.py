"""Trained networks as small files for use elsewhere: freeze, save and load, ONNX, C."""

from ovsw_jax.deploy.c.compiled import compile  # noqa: A004 - as ovsw.deploy.compile
from ovsw_jax.deploy.file import load
from ovsw_jax.deploy.freeze import freeze
from ovsw_jax.deploy.network import FrozenNetwork
from ovsw_jax.deploy.preprocessing import Preprocessing

__all__ = ["FrozenNetwork", "Preprocessing", "compile", "freeze", "load"]
