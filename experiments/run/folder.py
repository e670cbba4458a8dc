"""The folder of a run: what was run, with which versions, and what was measured.

config.json    every field of the Config         versions.json  packages, code, device
data.json      number of images, classes, and fingerprints of the images
metrics.jsonl  a line per member and epoch       tensorboard/   the same as events
latent.npz     initial latent weights and never-flipped masks of the first seed, where each
               optimizer has one point           checkpoints/   of members in training
weights/       trained weights, likewise, and in a sweep those of each optimizer's best point
               (see experiments.run.weights); as the former, so are histograms/ of latent
               weights by epoch and predictions/ for the test images (experiments.run.histograms and
               .predictions)
network.json   size and cost of the network      examples/      test images, right and wrong answers
summary.json, summary.md, report.html, figures/  written by experiments.report and .figures
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from filelock import FileLock, Timeout

from experiments.config import Config
from experiments.config.config_diff import differences, settings
from experiments.run import histograms
from experiments.run.atomic_files import WriteError, write_arrays, writing, written_whole
from experiments.run.checkpoint import Checkpoints
from experiments.run.histograms import Counts
from experiments.run.symlinks import check_links
from experiments.run.tensorboard import TensorBoard
from experiments.sweep.members import Member

PACKAGES = ("ovsw-jax", "jax", "jaxlib", "flax", "optax", "numpy")
LOCK = ".lock"
# Raised by parsing a line that is no row of a run.
_NO_ROW = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
# Written before config.json, first with a dot: a folder with no more has no run yet.
_FIRST = {LOCK, "versions.json", ".versions.json", "data.json", ".data.json", ".config.json"}


class RunFolder:
    """A run folder, new or of an unfinished run, open for writing.

    `command` goes to versions.json, and `data`, which describes the data set, to data.json.

    Raises:
      ValueError: if the folder holds anything but a run of the same config and data, has links that
        lead out of it, or can't be written.
      WriteError: if only a part of it can be written.
    """

    def __init__(
        self,
        config: Config,
        command: str | None = None,
        data: Mapping[str, Any] | None = None,
    ):
        self.path = config.out or _new_path(config)
        self.checkpoints = Checkpoints(self.path / "checkpoints")  # of members in training
        self._command, self._config = command, config
        self._lock = FileLock(self.path / LOCK)  # released at any end of the process
        self._latent: dict[str, np.ndarray] = {}
        self._tensorboard = TensorBoard(self.path / "tensorboard", config)
        try:
            self._open(config, data)
        except Timeout as error:
            raise ValueError(
                f"another process is writing to run folder {self.path}: wait for it to end, or "
                "give another --out."
            ) from error
        except (ValueError, WriteError):
            self._lock.release()
            raise
        except OSError as error:
            self._lock.release()
            raise ValueError(
                f"run folder {self.path} cannot be written: {error.strerror or error}. Fix that, "
                "or give another --out, where you may write and there is room."
            ) from error

    def _open(self, config: Config, data: Mapping[str, Any] | None) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in self.path.iterdir()}
        begun = LOCK in there and there <= _FIRST
        if there and not begun and "config.json" not in there:
            raise ValueError(
                f"run folder {self.path} is not empty and holds no run; a run overwrites "
                "nothing. Give another --out, or omit --out for a new folder under runs/."
            )
        check_links(self.path)
        self._lock.acquire(timeout=0)
        if not self._file("config.json").exists():
            self._write_json("versions.json", {"command": self._command, **versions()})
            if data is not None:
                self._write_json("data.json", data)
            self._write_json("config.json", dataclasses.asdict(config))
        else:
            self._check_same(config)
            self._check_same_data(data)
            self._remember(data)
            self._read_latent()
        self._metrics = self._file("metrics.jsonl").open("a", encoding="utf-8")

    def note_continued(self) -> None:
        """Adds to versions.json the versions that the run resumes with."""
        path = self._file("versions.json")
        there = self._read_json("versions.json") if path.exists() else {}
        here = {"command": self._command, **versions()}
        earlier = there.get("continued")
        there["continued"] = [*(earlier if isinstance(earlier, list) else []), here]
        self._write_json("versions.json", there)

    def keep_networks(self, counted: Callable[[], Mapping[str, Any]]) -> None:
        """Writes network.json, by name of the network, unless it is there."""
        if not self._file("network.json").exists():
            self._write_json("network.json", counted())

    def forget_images(self) -> None:
        """Drops the fingerprints: an unreadable image may be replaced before the run resumes."""
        kept = {k: v for k, v in self._data_json().items() if not k.endswith("_fingerprint")}
        self._write_json("data.json", kept)

    def has_lines(self) -> bool:
        """Whether metrics.jsonl holds anything, even an incomplete line."""
        return self._file("metrics.jsonl").stat().st_size > 0

    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, without an incomplete last line.

        Raises:
          ValueError: if another line is no row.
        """
        lines = self._file("metrics.jsonl").read_bytes().splitlines()
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                hash(member_of(row).key)
                if not all(type(row[name]) is int for name in ("epoch", "seed")):
                    raise TypeError("epoch and seed must be whole numbers")
            except _NO_ROW as error:
                if number == len(lines):
                    break
                raise ValueError(
                    f"line {number} of {self._file('metrics.jsonl')} is no row of a run "
                    f"({type(error).__name__}: {error}): the run can't resume. Fix the line, or "
                    "give another --out."
                ) from error
            rows.append(row)
        return rows

    def keep_rows(
        self, rows: Iterable[Mapping[str, Any]], dropped: Sequence[Mapping[str, Any]]
    ) -> None:
        """Replaces metrics.jsonl, whole or not at all; metrics.dropped.jsonl gets dropped rows."""
        if dropped:
            path = self._file("metrics.dropped.jsonl")
            with self._writing(path.name), path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in dropped)
        self._metrics.close()
        self._write_text("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        self._metrics = self._file("metrics.jsonl").open("a", encoding="utf-8")

    def write_metrics(self, rows: Sequence[dict[str, Any]]) -> None:
        """Appends rows to metrics.jsonl, at once, and their scalars to TensorBoard."""
        with self._writing("metrics.jsonl"):
            self._metrics.write("".join(json.dumps(row) + "\n" for row in rows))
            self._metrics.flush()
            os.fsync(self._metrics.fileno())  # before their checkpoint is removed
        with self._writing("tensorboard"):
            for row in rows:
                self._tensorboard.add_row(row)

    def write_histograms(self, member: Member, epoch: int, step: int, counts: Counts) -> None:
        """Appends the latent weights of an epoch to histograms/, and to TensorBoard."""
        file = histograms.file_of(self.path, member.optimizer, member.seed)
        histograms.append(file, epoch, step, counts)
        with self._writing("tensorboard"):
            self._tensorboard.add_histograms(member, step, counts)

    def finish_events(self) -> None:
        """Closes the TensorBoard files of finished members: a sweep has many."""
        with self._writing("tensorboard"):
            self._tensorboard.finish()

    def keep_latent(self, optimizer: str, kind: str, layers: dict[str, np.ndarray]) -> None:
        """Keeps an array per layer for latent.npz; later ones of the same kind replace them."""
        self._latent.update({f"{optimizer}|{layer}|{kind}": x for layer, x in layers.items()})

    def write_latent(self) -> None:
        """Writes what was kept to latent.npz, whole or not at all."""
        if self._latent:
            write_arrays(self._file("latent.npz"), self.path, self._latent, compressed=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Closes it; after an error, suppresses what fails in that."""
        with contextlib.suppress(OSError) if error else contextlib.nullcontext():
            self.close()

    def close(self) -> None:
        """Writes latent.npz and closes every file; releases the lock whatever fails."""
        with contextlib.ExitStack() as closing:
            closing.callback(self._lock.release)
            closing.callback(self._tensorboard.close)
            closing.callback(self._metrics.close)
            closing.callback(self.write_latent)
            closing.callback(self.checkpoints.close)

    def _check_same(self, config: Config) -> None:
        # A folder of an earlier version lacks newer fields, which have their defaults.
        there = {**settings(Config()), **self._read_json("config.json")}
        here = dataclasses.asdict(config)
        for name in here.keys() - settings(config).keys():
            there.pop(name, None)
        different = differences(there, settings(config))
        if different:
            raise ValueError(
                f"run folder {self.path} holds another run; a run never overwrites another: "
                f"{'; '.join(different)}. Give another --out, or omit --out for a new folder "
                "under runs/."
            )

    def _check_same_data(self, data: Mapping[str, Any] | None) -> None:
        there, here = self._data_json(), json.loads(json.dumps(data or {}))
        different = [name for name in here if name in there and there[name] != here[name]]
        if different:
            changes = "; ".join(_changed(name, there[name], here[name]) for name in different)
            raise ValueError(
                f"the data set has changed since run folder {self.path} was begun: {changes}. A "
                "run does not resume with other images. Restore them, or give another --out; or, "
                f"if only unreadable images were replaced, remove {self._file('data.json')}."
            )

    def _remember(self, data: Mapping[str, Any] | None) -> None:
        """Adds what data.json of an earlier version lacks."""
        there = self._data_json()
        if data is not None and data.keys() - there.keys():
            self._write_json("data.json", {**there, **data})

    def _data_json(self) -> dict[str, Any]:
        return self._read_json("data.json") if self._file("data.json").exists() else {}

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self._file(name)
        try:
            return dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path} is no JSON object ({error}): the run can't resume. Fix it, or give "
                "another --out."
            ) from error

    def _read_latent(self) -> None:
        path = self._file("latent.npz")
        if path.exists():
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    self._latent = dict(arrays)
            except Exception as error:  # zipfile, zlib and NumPy raise many kinds
                raise ValueError(
                    f"{path} is damaged ({type(error).__name__}): the run can't resume. Remove it "
                    "to resume without its histograms, or give another --out."
                ) from error

    def _file(self, name: str) -> Path:
        return self.path / name

    def _writing(self, name: str) -> contextlib.AbstractContextManager[None]:
        return writing(self._file(name), self.path)

    def _write_text(self, name: str, text: str) -> None:
        with written_whole(self._file(name), self.path) as path:
            path.write_text(text, encoding="utf-8")

    def _write_json(self, name: str, content: Any) -> None:
        self._write_text(name, json.dumps(content, indent=2, default=str) + "\n")


def member_of(row: Mapping[str, Any]) -> Member:
    """The member of a row of metrics.jsonl."""
    return Member(str(row["optimizer"]), row.get("point", {}), int(row["seed"]))


def _changed(name: str, there: Any, here: Any) -> str:
    """How a value of data.json has changed, in words."""
    if name.endswith("_fingerprint"):
        split = name.removesuffix("_fingerprint")
        return f"{split} images are others, or have other names or classes"
    counts = isinstance(there, int) and isinstance(here, int)
    return f"{name} were {there} and are {here}" if counts else f"{name} are others"


def versions() -> dict[str, Any]:
    """Packages, Python, code version and hardware."""
    devices = jax.devices()
    return {
        **{package: importlib.metadata.version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """Commit of the code, with `-dirty` if changed; None outside a git checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _new_path(config: Config) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    data = Path(config.data).name or "data"
    return Path("runs") / f"{data}-{config.network.replace(':', '.')}-{now}"
