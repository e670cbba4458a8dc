"""What the page of a run says: a dict that JSON can hold."""

from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import Any, TypeVar

from experiments.config.config_file import read_object
from experiments.optimizers import display_name
from experiments.report.html import arms, settings
from experiments.report.html.answers import answers, example_images
from experiments.report.html.curves import curves
from experiments.report.html.latent import latent
from experiments.report.html.layers import layers
from experiments.report.html.verdict import verdict
from experiments.report.page import compared
from experiments.report.table import rows, summarise
from experiments.run.reader import Run

Part = TypeVar("Part")
_OLDER = "runs before version 0.2 and sweeps of several settings keep none"


def content(run: Run, *, images: bool = True) -> dict[str, Any]:
    """The parts of the page; `missing` says in a sentence each what the folder does not hold.

    `arm` of the parts is a place in the list `arms`.
    """
    heads, body = rows(summarise(run))
    missing = _Missing()
    return {
        "title": _title(run),
        "verdict": verdict(run),
        "about": _about(run),
        "notes": list(run.notes),
        "arms": arms.looks(run),
        "table": {"heads": heads, "rows": body},
        **_measured(run, missing),
        **_kept(run, images, missing),
        "config": settings.config_list(run.config),
        "versions": settings.versions_list(run.versions),
        "command": missing.or_found("Command", partial(_command, run), "versions.json has none"),
        "missing": missing.sentences,
    }


class _Missing:
    """What can't be shown, and why."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def add(self, part: str, why: str) -> None:
        self.sentences.append(f"{part}: {why}.")

    def or_found(self, part: str, read: Callable[[], Part], none: str) -> Part | None:
        """What `read` finds; None if that is nothing, for which `none` is why, or can't be read."""
        try:
            found = read()
        except FileNotFoundError as error:
            self.add(part, f"{PurePath(str(error.filename)).name} is not in the folder")
        except (OSError, ValueError) as error:
            self.add(part, str(error))
        else:
            if found:
                return found
            self.add(part, none)
        return None


def _measured(run: Run, missing: _Missing) -> dict[str, Any]:
    """What metrics.jsonl and histograms/ hold."""
    shown, panels = arms.of_curves(run), arms.of_panels(run)
    if len(shown) < len(run.arms):
        missing.add("Curves", f"the best {len(shown)} of {len(run.arms)} settings are drawn")
    found: dict[str, Any] = {"curves": curves(run, shown), "layers": None, "latent": None}
    if run.holds("never_flipped_ratio"):  # else the weights are real
        found["layers"] = missing.or_found(
            "Heat maps", partial(layers, run, panels), "metrics.jsonl has no layers"
        )
        found["latent"] = missing.or_found(
            "Histograms of latent weights",
            partial(latent, run, panels),
            f"histograms/ has none; {_OLDER}",
        )
    return found


def _kept(run: Run, images: bool, missing: _Missing) -> dict[str, Any]:
    """What predictions/, examples/, data.json and network.json hold."""
    classes, panels = _classes(run), arms.of_panels(run)
    return {
        "classes": classes,
        "answers": missing.or_found(
            "Confusion matrix",
            partial(answers, run, classes, panels),
            f"predictions/ has none; {_OLDER}",
        ),
        "examples": missing.or_found(
            "Example images",
            partial(example_images, run, panels if images else ()),
            f"examples/ has none; {_OLDER}" if images else "left out of this page",
        ),
        "networks": missing.or_found(
            "Size of the network", partial(settings.networks, run), "network.json is empty"
        ),
    }


def _classes(run: Run) -> list[str]:
    """Names of the classes, as data.json has them; none of an older run."""
    try:
        found = read_object(run.folder / "data.json").get("classes")
    except (OSError, ValueError):
        return []
    return [str(name) for name in found] if isinstance(found, list) else []


def _command(run: Run) -> str:
    return str(run.versions.get("command") or run.config.get("command") or "")


def _title(run: Run) -> str:
    data = PurePath(str(run.config.get("data") or "")).name  # may be a folder
    return f"{compared(run)} on {data}" if data else compared(run)


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
