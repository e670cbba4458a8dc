"""The state of a training on disk. Orbax writes it in the background and keeps the newest two.

A checkpoint is a folder NUMBER under RUN/checkpoints: arrays in Orbax's format, and JSON that
describes them. It holds no pickle and no code.
"""

import contextlib
import errno
import itertools
import json
import logging
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.config.config_diff import differences
from experiments.process import distributed
from experiments.run.atomic_files import WriteError, reason, system_error

KEPT = 2
_MOST_NAMED = 5  # differences in a message

About = dict[str, Any]


class Checkpoints:
    """The checkpoints in a folder of their own, which is made with the first one."""

    def __init__(self, folder: Path):
        self._folder = folder.absolute()
        self._manager: ocp.CheckpointManager | None = None

    def numbers(self) -> list[int]:
        """The complete ones, the newest first."""
        return sorted(self._opened().all_steps(), reverse=True) if self._folder.is_dir() else []

    def save(self, number: int, tree: Any, about: About) -> None:
        """Copies the arrays and writes them in the background.

        A kill at any moment leaves no incomplete checkpoint.

        Args:
          number: larger than those before; if there is a checkpoint of that number, nothing
            happens.
          tree: pytree of arrays and random keys, which may be donated afterwards.
          about: JSON.

        Raises:
          WriteError: if this one or the one before can't be written.
        """
        with self._writing():
            there = self._opened().all_steps()
        if number in there:
            return
        leaves = _copied(jax.tree.leaves(tree))
        text = json.dumps({**about, "arrays": _describe(tree)})
        arrays = {str(i): x for i, x in enumerate(leaves)}
        args = ocp.args.Composite(
            arrays=ocp.args.StandardSave({**arrays, "checksums": _checksums(leaves)}),
            about=ocp.args.JsonSave({"text": text, "crc32": zlib.crc32(text.encode())}),
        )
        with self._writing():
            self._opened().save(number, args=args)

    def wait(self) -> None:
        """Waits until the newest is on disk.

        Raises:
          WriteError: if it can't be written.
        """
        if self._manager is not None:
            with self._writing():
                self._manager.wait_until_finished()

    def about(self) -> About | None:
        """`about` of the newest checkpoint whose JSON is undamaged; None if there is none."""
        return next((about for _, about in self._abouts(lambda _: None)), None)

    def restore(
        self, like: Any, expected: About, report: Callable[[str], None]
    ) -> tuple[Any, About] | None:
        """The newest undamaged checkpoint; moves damaged ones beside the folder and reports each.

        Args:
          like: pytree of arrays and random keys, with the shardings of the result.
          expected: what `about` must hold, a mapping under each name.
          report: called with a sentence per damaged checkpoint.

        Returns:
          The tree and its `about`; None if there is no checkpoint.

        Raises:
          ValueError: if it is of another training (says what differs), or can't be read just now.
        """
        for number, about in self._abouts(lambda n: self._put_aside(n, report)):
            self._check_fits(number, about, {**expected, "arrays": _describe(like)})
            try:
                arrays = self._arrays(number, like)
            except Exception as error:  # Orbax and TensorStore raise many kinds
                self._check_damaged(number, error)
                arrays = None
            if distributed.all_agree(arrays is not None):
                return arrays, about
            self._put_aside(number, report)
        return None

    def put_aside(self) -> Path:
        """Moves all of them beside the folder; returns their new place."""
        names = (f"{self._folder.name}.unused{i or ''}" for i in itertools.count())
        place = next(p for n in names if not (p := self._folder.with_name(n)).exists())
        with self._moving() as mover:
            if mover:
                self._folder.rename(place)
        return place

    def remove(self) -> None:
        """Removes all of them; a kill in the middle leaves no incomplete one."""
        going = self._folder.with_name(f".{self._folder.name}")
        with self._moving() as mover:
            if mover and self._folder.is_dir():
                shutil.rmtree(going, ignore_errors=True)
                self._folder.rename(going)
                shutil.rmtree(going)

    def close(self) -> None:
        """Ends writing.

        Raises:
          WriteError: if the newest can't be written.
        """
        manager, self._manager = self._manager, None
        if manager is not None:
            with self._writing():
                try:
                    manager.wait_until_finished()
                finally:
                    manager.close()

    def _opened(self) -> ocp.CheckpointManager:
        if self._manager is None:
            _quieten_orbax()
            options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, cleanup_tmp_directories=True)
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        return self._manager

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns all that Orbax and TensorStore raise, now or of an earlier write, into one kind."""
        try:
            yield
        except Exception as error:
            raise WriteError(self._folder, self._folder.parent, error) from error

    @contextlib.contextmanager
    def _moving(self) -> Iterator[bool]:
        """Whether this process moves the files; the others wait until it has."""
        self.close()
        distributed.wait("closing of checkpoints")
        with self._writing():
            yield distributed.is_first()
        distributed.wait("moving of checkpoints")

    def _abouts(self, damaged: Callable[[int], None]) -> Iterator[tuple[int, About]]:
        for number in self.numbers():
            try:
                about = self._read_about(number)
            except Exception as error:  # many kinds, as above
                self._check_damaged(number, error)
                damaged(number)
            else:
                yield number, about

    def _read_about(self, number: int) -> About:
        args = ocp.args.Composite(about=ocp.args.JsonRestore())
        read = self._opened().restore(number, args=args).about
        if zlib.crc32(read["text"].encode()) != read["crc32"]:
            raise ValueError("its JSON is not what was written")
        return dict(json.loads(read["text"]))

    def _arrays(self, number: int, like: Any) -> Any:
        leaves, treedef = jax.tree.flatten(like)
        wanted = {
            str(i): jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=leaf.sharding)
            for i, (x, leaf) in enumerate(zip(jax.eval_shape(_plain, leaves), leaves, strict=True))
        }
        everywhere = _whole(leaves[0].sharding)
        sums = jax.ShapeDtypeStruct((len(leaves),), jnp.uint32, sharding=everywhere)
        args = ocp.args.StandardRestore({**wanted, "checksums": sums})
        read = self._opened().restore(number, args=ocp.args.Composite(arrays=args)).arrays
        plain = [read[str(i)] for i in range(len(leaves))]
        if not _have(plain, read["checksums"]):
            raise ValueError("its arrays are not what was written")
        shardings = [leaf.sharding for leaf in leaves]
        keys = tuple(_is_key(leaf) for leaf in leaves)
        restored = jax.jit(_with_keys, static_argnums=1, out_shardings=shardings)(plain, keys)
        return jax.tree.unflatten(treedef, restored)

    def _check_damaged(self, number: int, error: Exception) -> None:
        """Raises ValueError if the error may be gone at the next try."""
        if (cause := _passing(error)) is not None:
            raise ValueError(
                f"checkpoint {self._folder / str(number)} can't be read: {cause}. Nothing is lost: "
                "fix that, and the same command resumes the run; or move that checkpoint away to "
                "use the one before."
            ) from error

    def _check_fits(self, number: int, about: About, expected: Mapping[str, Any]) -> None:
        different = [
            difference
            for name, values in expected.items()
            for difference in differences(_mapping(about.get(name)), values)
        ]
        if different:
            more = f" and {len(different) - _MOST_NAMED} more" * (len(different) > _MOST_NAMED)
            raise ValueError(
                f"checkpoint {self._folder / str(number)} is of another training: "
                f"{'; '.join(different[:_MOST_NAMED])}{more}. Resume with the settings it was "
                "made with, or move it away: its trainings then start again. "
                "ovsw_jax.convert_flip_state converts a flip state to another kind."
            )

    def _put_aside(self, number: int, report: Callable[[str], None]) -> None:
        aside = self._folder.with_name(f"{self._folder.name}.damaged")
        place = aside / str(number)
        with self._moving() as mover:
            if mover:
                aside.mkdir(exist_ok=True)
                shutil.rmtree(place, ignore_errors=True)
                (self._folder / str(number)).rename(place)
        then = "The one before is used" if self.numbers() else "There is none before"
        report(f"checkpoint {number} is damaged; it is now {place}. {then}")


def _passing(error: Exception) -> str | None:
    """What the system or the device lacks; None if the files themselves are damaged."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return reason(error) or "there is not enough memory"
    code = system_error(error)
    return None if code in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR) else reason(error)


def _quieten_orbax() -> None:
    """Lasts for the rest of the process, since background failures may show late."""
    logging.getLogger("absl").addFilter(_is_not_of_orbax)
    hook = sys.unraisablehook
    if not (isinstance(hook, partial) and hook.func is _unless_left_behind):
        sys.unraisablehook = partial(_unless_left_behind, hook)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Orbax raises what it logs of a failure, with several tracebacks."""
    return "orbax" not in record.pathname


def _unless_left_behind(hook: Callable[[Any], object], unraisable: Any) -> None:
    """When one read or write fails, Orbax leaves others unfinished, which complain when collected.

    Some find their event loop closed, others are closed while they wait.
    """
    code = getattr(unraisable.object, "cr_code", None)
    of_orbax = code is not None and "orbax" in Path(code.co_filename).parts
    if not (of_orbax or "Event loop is closed" in str(unraisable.exc_value)):
        hook(unraisable)


def _mapping(value: Any) -> Mapping[str, Any]:
    """An untrusted checkpoint may hold anything."""
    return value if isinstance(value, dict) else {}


def _describe(tree: Any) -> dict[str, str]:
    """Shape and dtype of each leaf by its path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}{list(x.shape)}"
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def _plain(leaves: Sequence[jax.Array]) -> list[jax.Array]:
    return [jax.random.key_data(x) if _is_key(x) else x for x in leaves]


@jax.jit
def _copied(leaves: Sequence[jax.Array]) -> list[jax.Array]:
    return [jnp.copy(x) for x in _plain(leaves)]


def _with_keys(leaves: Sequence[jax.Array], keys: Sequence[bool]) -> list[jax.Array]:
    return [jax.random.wrap_key_data(x) if key else x for x, key in zip(leaves, keys, strict=True)]


@jax.jit
def _checksums(leaves: Sequence[jax.Array]) -> jax.Array:
    """(leaves,) uint32; TensorStore finds files that are too short, but no flipped bits."""
    return jnp.stack([_checksum(x) for x in leaves])


@jax.jit
def _have(leaves: Sequence[jax.Array], checksums: jax.Array) -> jax.Array:
    """Whether the leaves have these checksums; a scalar, which every process can read."""
    return jnp.all(_checksums(leaves) == checksums)


def _whole(sharding: jax.sharding.Sharding) -> jax.sharding.Sharding:
    """The sharding on the same devices of an array that is whole on each."""
    return NamedSharding(sharding.mesh, P()) if isinstance(sharding, NamedSharding) else sharding


def _checksum(x: jax.Array) -> jax.Array:
    """Sum of all words times odd numbers, modulo 2^32: one changed word always changes it."""
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    word = jnp.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}")
    words = lax.bitcast_convert_type(x, word).reshape(-1).astype(jnp.uint32)
    odd = 2 * lax.iota(jnp.uint32, words.size) + 1
    return jnp.sum(words * odd, dtype=jnp.uint32)


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
