"""Checks an installed ovsw_jax: no extras of a clone, no code but its own, the README's Python."""

import importlib.metadata
import re
import sys
from pathlib import Path

CLONE = Path(sys.argv[1]).resolve()

distribution = importlib.metadata.distribution("ovsw-jax")
extras = set(distribution.metadata.get_all("Provides-Extra", []))
assert not extras & {"docs", "experiments", "test", "torch", "versions"}, extras
folders = {file.parts[0] for file in distribution.files or []}
assert folders == {"ovsw_jax", f"ovsw_jax-{distribution.version}.dist-info"}, folders

names: dict[str, object] = {}
for block in re.findall(r"```python\n(.*?)```", (CLONE / "README.md").read_text(), re.DOTALL):
    exec(compile(block, "README.md", "exec"), names)
installed = Path(sys.modules["ovsw_jax"].__file__ or "").resolve()
assert not installed.is_relative_to(CLONE / "ovsw_jax"), installed
assert (installed.parent / "py.typed").is_file()
