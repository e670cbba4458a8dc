"""What the page of a run says: a dict that JSON can hold."""

from collections.abc import Callable
from pathlib import PurePath
from typing import Any, TypeVar

from experiments.config.config_file import read_object
from experiments.optimizers import display_name
from experiments.report.html import answers, arms, settings
from experiments.report.html.curves import curves
from experiments.report.html.latent import latent
from experiments.report.html.layers import layers
from experiments.report.html.verdict import verdict
from experiments.report.table import rows, summarise
from experiments.run.reader import Run

Part = TypeVar("Part")
_OLDER = "runs before version 0.2 and sweeps of several settings keep none"


def content(run: Run, *, images: bool = True) -> dict[str, Any]:
    """The parts of the page; `missing` says in a sentence each what the folder does not hold.

    `arms` of the parts are places in the list `arms`.
    """
    missing: list[str] = []
    kept, of_curves = arms.of_panels(run), arms.of_curves(run)
    classes = _classes(run)
    binary = run.holds("never_flipped_ratio")
    heads, body = rows(summarise(run))
    data = {
        "title": _title(run),
        "verdict": verdict(run),
        "about": _about(run),
        "notes": list(run.notes),
        "arms": arms.looks(run),
        "table": {"heads": heads, "rows": body},
        "curves": curves(run, of_curves),
        "layers": layers(run, kept),
        "latent": latent(run, kept),
        "classes": classes,
        "answers": _tried(missing, "Confusion matrix", lambda: answers.answers(run, classes, kept)),
        "examples": [],
        "networks": _tried(missing, "Size of the network", lambda: settings.networks(run)),
        "config": settings.config_list(run.config),
        "versions": settings.versions_list(run.versions),
        "command": str(run.versions.get("command") or run.config.get("command") or "") or None,
    }
    if images:
        read = lambda: answers.example_images(run, kept)  # noqa: E731
        data["examples"] = _tried(missing, "Example images", read)
    if len(of_curves) < len(run.arms):
        missing.append(f"Curves: the best {len(of_curves)} of {len(run.arms)} settings are drawn.")
    if binary and data["layers"] is None:
        missing.append("Heat maps: metrics.jsonl has no layers.")
    if binary and data["latent"] is None:
        missing.append(f"Histograms of latent weights: histograms/ has none; {_OLDER}.")
    if not data["answers"]:
        missing.append(f"Confusion matrix: predictions/ has none; {_OLDER}.")
    if images and not data["examples"]:
        missing.append(f"Example images: examples/ has none; {_OLDER}.")
    if not images:
        missing.append("Example images: left out of this page.")
    if data["command"] is None:
        missing.append("Command: versions.json does not say it.")
    return data | {"missing": missing}


def _tried(missing: list[str], part: str, read: Callable[[], list[Part]]) -> list[Part]:
    """What `read` gives; if it can't be read, nothing, and why."""
    try:
        return read()
    except FileNotFoundError as error:
        missing.append(f"{part}: {PurePath(str(error.filename)).name} is not in the folder.")
    except (OSError, ValueError) as error:
        missing.append(f"{part}: {error}.")
    return []


def _classes(run: Run) -> list[str]:
    """Names of the classes, as data.json has them; none of an older run."""
    try:
        found = read_object(run.folder / "data.json").get("classes")
    except (OSError, ValueError):
        return []
    return [str(name) for name in found] if isinstance(found, list) else []


def _title(run: Run) -> str:
    names = [display_name(name) for name in run.optimizers]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    data = PurePath(str(run.config["data"])).name if run.config.get("data") else ""
    return f"{listed} on {data}" if data else listed


def _about(run: Run) -> list[dict[str, str]]:
    """What was compared, as terms and values."""
    config = run.config
    seeds = sorted({len(run.seeds(arm)) for arm in run.arms})
    found = {
        "Data": settings.text(config.get("data")),
        "Network": settings.text(config.get("network")),
        "Optimizers": ", ".join(display_name(name) for name in run.optimizers),
        "Settings": f"{len(run.arms)}" if run.is_sweep else "",
        "Seeds": " to ".join(map(str, sorted({seeds[0], seeds[-1]}))),
        "Epochs": settings.text(run.planned_epochs),
        "Folder": run.folder.resolve().name,
        "Started": settings.text(run.versions.get("started")),
    }
    return [{"field": k, "value": v} for k, v in found.items() if v not in ("", "none")]
