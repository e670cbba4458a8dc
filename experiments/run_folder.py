"""The folder of a run: what was run, with which versions, and what was measured.

config.json    every field of the Config         versions.json  packages, code, device
metrics.jsonl  a line an optimizer, epoch, seed  tensorboard/   the same as events
latent.npz     initial latent weights and never-flipped masks of the first seed
summary.json, summary.md, figures/               written by experiments.summary and .figures
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from experiments.configs import Config

PACKAGES = ("ovsw-jax", "jax", "jaxlib", "flax", "optax", "numpy")


class RunFolder:
    """A new run folder, open for writing."""

    def __init__(self, config: Config, command: str | None = None):
        """Makes the folder and writes config.json and versions.json, the `command` in it.

        Raises:
          ValueError: if the folder already holds something, or can't be written.
        """
        self.path = config.out or _new_path(config)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()):
                what = (
                    "already holds a run" if self._file("config.json").exists() else "is not empty"
                )
                raise ValueError(
                    f"run folder {self.path} {what}; a run never overwrites another. Give another "
                    "--out, leave --out away for a new folder under runs/, or remove it."
                )
            self._write_json("config.json", dataclasses.asdict(config))
            self._write_json("versions.json", {"command": command, **versions()})
            self._metrics = self._file("metrics.jsonl").open("a", encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"run folder {self.path} cannot be written: {error.strerror or error}. Give an "
                "--out that does not exist yet, in a folder that you may write to."
            ) from error
        self._writers: dict[str, SummaryWriter] = {}
        self._latent: dict[str, np.ndarray] = {}

    def write_metrics(self, row: dict[str, Any]) -> None:
        """Appends one row to metrics.jsonl, at once, and its scalars to TensorBoard."""
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        name = f"{row['optimizer']}-seed{row['seed']}"
        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._file("tensorboard") / name))
        for metric, value in row.items():
            if isinstance(value, float):
                self._writers[name].add_scalar(metric, value, row["step"])
        for layer, metrics in row["layers"].items():
            for metric, value in metrics.items():
                self._writers[name].add_scalar(f"{metric}/{layer}", value, row["step"])

    def keep_latent(self, optimizer: str, kind: str, layers: dict[str, np.ndarray]) -> None:
        """Keeps arrays a layer for latent.npz; later ones of the same kind replace them."""
        self._latent.update({f"{optimizer}|{layer}|{kind}": x for layer, x in layers.items()})

    def write_latent(self) -> None:
        """Writes what was kept to latent.npz, whole or not at all."""
        if self._latent:
            unfinished = self._file(".latent.npz")
            np.savez_compressed(unfinished, **self._latent)  # type: ignore[arg-type]
            unfinished.replace(self._file("latent.npz"))

    def close(self) -> None:
        """Writes latent.npz and closes every file."""
        self.write_latent()
        self._metrics.close()
        for writer in self._writers.values():
            writer.close()

    def _file(self, name: str) -> Path:
        return self.path / name

    def _write_json(self, name: str, content: Any) -> None:
        text = json.dumps(content, indent=2, default=str)
        self._file(name).write_text(text + "\n", encoding="utf-8")


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
    return Path("runs") / f"{data}-{config.network}-{now}"
