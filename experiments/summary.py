"""A run on one page: summary.json, summary.md and the table at the end of training. No jax.

    python -m experiments.summary RUN      # writes both again and prints the table

Every number is taken at the last epoch that all seeds of an optimizer finished, as mean and
sample standard deviation (n - 1) over the seeds.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.records import Run, display_name, read_run, sample_std

Summary = Mapping[str, Mapping[str, Any]]

# Key of summary.json, key of metrics.jsonl, head of the column.
_COLUMNS = (
    ("top1", "test_top1", "top-1 %"),
    ("never_flipped", "never_flipped_ratio", "never flipped %"),
    ("silent", "silent_ratio", "silent %"),
)
_CAPTIONS = {
    "headline": "Never-flipped share and test top-1",
    "convergence": "Training loss and test top-1 over the epochs",
    "flips": "Flip ratio and silent ratio of each layer over the epochs",
    "never_flipped": "Initial latent weights, and those whose sign never flipped",
}


def summarise(run: Run) -> dict[str, dict[str, Any]]:
    """Optimizer -> top1, never_flipped, silent (fractions, one a seed), seeds, epochs, finished."""
    return {
        name: {
            **{key: run.final(name, metric) for key, metric, _ in _COLUMNS},
            "seeds": run.seeds(name),
            "epochs": run.last_epoch(name),
            "finished": run.finished(name),
        }
        for name in run.optimizers
    }


def spread(fractions: Sequence[float]) -> str:
    """Mean ± sample std in percent and the number of seeds; one seed has no std.

    >>> spread([0.95, 0.97]), spread([0.95])
    ('96.0 ± 1.4 (n = 2)', '95.0 (n = 1)')
    """
    values = 100 * np.array(fractions, np.float64)
    std = sample_std(values)
    plus_minus = "" if std is None else f" ± {float(std):.1f}"
    return f"{values.mean():.1f}{plus_minus} (n = {len(values)})"


def table(source: Path | Summary) -> str:
    """The results as a markdown table, an optimizer a row.

    Args:
      source: a run folder, or the contents of a summary.json.

    Raises:
      FileNotFoundError, ValueError: as `experiments.records.read_run`.
    """
    heads = ["optimizer", *(head for _, _, head in _COLUMNS)]
    lines = [heads, ["---", *("---:" for _ in _COLUMNS)], *_cells(_load(source))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def print_table(source: Path | Summary, console: Console | None = None) -> None:
    """The same table on the terminal."""
    rich_table = Table(title="Last epoch, mean ± std over seeds")
    rich_table.add_column("optimizer")
    for _, _, head in _COLUMNS:
        rich_table.add_column(head, justify="right", no_wrap=True)
    for cells in _cells(_load(source)):
        rich_table.add_row(*cells)
    (console or Console()).print(rich_table)


def _load(source: Path | Summary) -> Summary:
    return source if isinstance(source, Mapping) else summarise(read_run(Path(source)))


def _cells(summary: Summary) -> Iterator[list[str]]:
    for name, result in summary.items():
        # A row that stopped early must not pass for one that is comparable.
        note = "" if result.get("finished", True) else f" ({_reached(result)})"
        yield [display_name(name) + note, *(spread(result[key]) for key, _, _ in _COLUMNS)]


def _reached(result: Mapping[str, Any]) -> str:
    seeds = len(result["top1"])
    return f"unfinished: {seeds} seed{'s' * (seeds > 1)}, epoch {result['epochs']}"


def write_summary(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Writes RUN/summary.json and RUN/summary.md; the figures that RUN/figures holds are embedded.

    Returns:
      The contents of summary.json.

    Raises:
      FileNotFoundError, ValueError: as `experiments.records.read_run`.
    """
    run = read_run(Path(run_dir))
    summary = summarise(run)
    text = json.dumps(summary, indent=2) + "\n"
    (run.folder / "summary.json").write_text(text, encoding="utf-8")
    (run.folder / "summary.md").write_text(page(run), encoding="utf-8")
    return summary


def page(run: Run) -> str:
    """summary.md: what was run, what came out, the figures, how to run it again."""
    blocks = [
        f"# {_title(run)}",
        *(f"**{note}**" for note in _interruptions(run)),
        table(summarise(run)).rstrip(),
        "Values at the last epoch; mean ± sample standard deviation over the seeds. "
        "*Never flipped*: binary weights whose sign is what it was at initialisation and never "
        "was anything else. *Silent*: binary weights that flipped too long ago, or never.",
        *_pictures(run.folder),
        *_command(run),
        _listing("Config", run.config),
        *([_listing("Versions", run.versions)] if run.versions else []),
        *(f"Note: {note}." for note in run.notes),
    ]
    return "\n\n".join(blocks) + "\n"


def _title(run: Run) -> str:
    names = " and ".join(display_name(name) for name in run.optimizers)
    data = f" on {run.config['data']}" if "data" in run.config else ""
    return names + data


def _interruptions(run: Run) -> list[str]:
    """A sentence for each optimizer that was measured less far than planned."""
    reached = {name: " with ".join(run.progress(name)) for name in run.optimizers}
    names = [*run.optimizers, *(n for n in run.planned_optimizers if n not in run.optimizers)]
    return [
        f"Interrupted: {display_name(name)} "
        + (f"got as far as {reached[name]}." if name in reached else "finished no epoch.")
        for name in names
        if not run.finished(name)
    ]


def _pictures(folder: Path) -> list[str]:
    shown = [
        f"![{caption}](figures/{name}.png)"
        for name, caption in _CAPTIONS.items()
        if (folder / "figures" / f"{name}.png").is_file()
    ]
    others = sorted(
        path.name for path in (folder / "figures").glob("*.png") if path.stem not in _CAPTIONS
    )
    links = ", ".join(f"[{name}](figures/{name})" for name in others)
    return shown + ([f"All layers: {links}"] if others else [])


def _command(run: Run) -> list[str]:
    """The command line, where the run recorded it."""
    command = run.versions.get("command", run.config.get("command"))
    return [] if command is None else [f"## Command\n\n    {command}"]


def _listing(head: str, content: Mapping[str, Any]) -> str:
    pairs = [f"{key} = {_plain(value)}" for key, value in content.items() if key != "command"]
    return f"## {head}\n\n" + ", ".join(pairs)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} = {_plain(v)}" for key, v in value.items()) + ")"
    return str(value)


def main(run: tyro.conf.Positional[Path]) -> None:
    """Writes a run folder's summary.json and summary.md again and prints the table.

    Args:
      run: run folder written by python -m experiments.train.
    """
    try:
        print_table(write_summary(run))
    except (OSError, ValueError) as error:
        sys.exit(f"no summary of {run}: {error}")


if __name__ == "__main__":
    tyro.cli(main)
