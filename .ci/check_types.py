"""Checks by basedpyright the types of an installed ovsw_jax: its public names, and users' code.

A second opinion: mypy checks the clone. Attributes whose type is inferred pass.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

USE = Path(__file__).resolve().parent.parent / "tests" / "typed_use.py"


def checked(*arguments: str) -> dict[str, Any]:
    """What basedpyright reports, run where no clone is in its way."""
    command = ["basedpyright", "--outputjson", *arguments]
    run = subprocess.run(command, capture_output=True, text=True)
    try:
        found: dict[str, Any] = json.loads(run.stdout)
    except ValueError as error:
        raise SystemExit(run.stdout + run.stderr) from error
    return found


def unknown() -> list[str]:
    """Public names without a type."""
    found = checked("--ignoreexternal", "--verifytypes", "ovsw_jax")["typeCompleteness"]
    assert found["exportedSymbolCounts"]["withKnownType"] > 500, found["exportedSymbolCounts"]
    symbols = [s for s in found["symbols"] if s["isExported"]]
    return [s["name"] for s in symbols if not (s["isTypeKnown"] or s["isTypeAmbiguous"])]


def errors() -> list[str]:
    """What is wrong with the users' program."""
    found = checked("--level", "error", str(USE))
    assert found["summary"]["filesAnalyzed"] == 1, found["summary"]
    return [
        f"line {e['range']['start']['line'] + 1}: {e['message']}"
        for e in found["generalDiagnostics"]
    ]


if __name__ == "__main__":
    raise SystemExit("\n".join([f"{name}: no type" for name in unknown()] + errors()) or None)
