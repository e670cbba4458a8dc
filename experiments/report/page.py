"""summary.md: a run on one page, with its table, figures, command and config."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.optimizers import display_name
from experiments.report import epochs_to_match
from experiments.report.table import silence_sentences, spread, summarise, table
from experiments.run.reader import TOP1, Run

_CAPTIONS = {
    "headline": "Ours: never-flipped share and test top-1",
    "convergence": "Ours: training loss and test top-1 over the epochs",
    "flips": "Ours: flip ratio and silent ratio of each layer over the epochs",
    "never_flipped": "Ours: initial latent weights, and those whose sign never flipped",
    "gamma_accuracy": "Ours: top-1 by scale of the initial weights, as Fig. 9 of the paper",
    "gamma_convergence": "Ours: top-1 over the epochs for each scale, as Fig. 8 of the paper",
    "gamma_flip_rate": "Ours: flip rate by scale of the initial weights",
    "gamma_flips_": "Ours: flip rate of each layer for each scale, as Figs. 10-25 of the paper",
    "lars_ags": "Ours: LARS over eta and AGS over lam, as Fig. 26 of the paper",
    "lam_tau": "Ours: top-1 and never-flipped share over lam and tau",
    "horizon": "Ours: top-1, never-flipped and silent share by silence horizon",
    "sweep": "Ours: every setting",
}
_MOST_NAMED = 8  # arms that get a sentence each; more are counted


def page(run: Run) -> str:
    """What was run, what came out, the figures, how to run it again."""
    blocks = [
        f"# {_title(run)}",
        *(f"**{note}**" for note in _interruptions(run)),
        *_held_out(run),
        table(summarise(run)).rstrip(),
        _legend(run),
        *_convergence(run),
        *_pictures(run.folder),
        *_command(run),
        _listing("Config", run.config),
        *([_listing("Versions", run.versions)] if run.versions else []),
        *(f"Note: {note}." for note in _shortened(run.notes)),
    ]
    return "\n\n".join(blocks) + "\n"


def _title(run: Run) -> str:
    return compared(run) + (f" on {run.config['data']}" if "data" in run.config else "")


def compared(run: Run) -> str:
    """What a run compares, as the beginning of its title: its optimizers, of a sweep how many."""
    names = [display_name(name) for name in run.optimizers]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 2 else names)
    if run.is_sweep:
        planned = max(len(run.planned_arms), len(run.arms))
        of = "" if len(run.arms) == planned else f"{len(run.arms)} of "
        listed += f", {of}{planned} settings,"
    return listed


def _held_out(run: Run) -> list[str]:
    images = run.config.get("held_out")
    if not images:
        return []
    return [
        f"Top-1 is on {images:,} training images that were kept from training, not on the test"
        " split: these numbers are for choosing settings."
    ]


def _legend(run: Run) -> str:
    best = " In bold the best top-1 of each optimizer." if run.is_sweep else ""
    values = f"Values at the last epoch; mean ± sample standard deviation over the seeds.{best}"
    if not run.holds("never_flipped_ratio"):
        activations = " and the activations" if run.config.get("binary") == "none" else ""
        return f"{values} The weights{activations} are real, so there are no flips."
    return (
        f"{values} *Never flipped*: binary weights whose sign is what it was at initialisation and "
        "never was anything else. *Silent*: binary weights that flipped too long ago, or never. "
        f"{silence_sentences(summarise(run))}".rstrip()
    )


def _interruptions(run: Run) -> list[str]:
    """A sentence for each arm that was measured less far than planned, or one for many."""
    names = [*run.arms, *(arm for arm in run.planned_arms if arm not in run.arms)]
    short = [arm for arm in names if not run.finished(arm)]
    if len(short) > _MOST_NAMED:
        begun = sum(arm in run.arms for arm in short)
        return [
            f"Interrupted: of {len(names)} settings {len(names) - len(short)} are finished, "
            f"{begun} came part of the way and {len(short) - begun} finished no epoch."
        ]
    return [
        f"Interrupted: {run.name(arm)} "
        + (
            f"got as far as {' with '.join(run.progress(arm))}."
            if arm in run.arms
            else "finished no epoch."
        )
        for arm in short
    ]


def _convergence(run: Run) -> list[str]:
    """Share of the training until each arm reaches SGD's final top-1, where SGD is in the run."""
    rows = [
        f"| {run.name(arm)} | {spread(run.final(sgd, TOP1), count=False)} | "
        f"{_share(epochs_to_match.shares(run, arm))} |"
        for arm in run.arms
        if (sgd := epochs_to_match.reference(run, arm)) is not None
    ]
    if not rows:
        return []
    head = "| | SGD's final top-1 % | first reached at % of the training |\n| --- | ---: | ---: |"
    return [
        "\n".join([head, *rows]),
        "When each seed first reaches the mean top-1 with which SGD ends, known to the epochs that "
        "were evaluated.",
    ]


def _share(shares: Sequence[float | None]) -> str:
    reached = [share for share in shares if share is not None]
    if not reached:
        return f"never (0 of {len(shares)} seeds)"
    short = "" if len(reached) == len(shares) else f", {len(reached)} of {len(shares)} seeds"
    return spread(reached) + short


def _pictures(folder: Path) -> list[str]:
    drawn = sorted(path.stem for path in (folder / "figures").glob("*.png"))
    shown, used = [], set()
    for start, caption in _CAPTIONS.items():
        for name in drawn:
            if name == start or (start.endswith("_") and name.startswith(start)):
                shown.append(f"![{caption}](figures/{name}.png)")
                used.add(name)
    links = ", ".join(f"[{n}.png](figures/{n}.png)" for n in drawn if n not in used)
    return shown + ([f"All layers: {links}"] if links else [])


def _command(run: Run) -> list[str]:
    """The command line, where the run recorded it."""
    command = run.versions.get("command", run.config.get("command"))
    return [] if command is None else [f"## Command\n\n    {command}"]


def _listing(head: str, content: Mapping[str, Any]) -> str:
    pairs = [f"{key} = {_plain(value)}" for key, value in content.items() if key != "command"]
    return f"## {head}\n\n" + ", ".join(pairs)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        listed = [
            f"({item})" if isinstance(item, str) and " " in item else _plain(item) for item in value
        ]
        return " ".join(listed)
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} = {_plain(v)}" for key, v in value.items()) + ")"
    return str(value)


def _shortened(notes: Sequence[str]) -> list[str]:
    """A sweep that was stopped may have a note for each of its arms."""
    if len(notes) <= _MOST_NAMED:
        return list(notes)
    return [*notes[:_MOST_NAMED], f"and {len(notes) - _MOST_NAMED} more of the kind"]
