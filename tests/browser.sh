#!/usr/bin/env bash
# Makes a browser available to the longer checks: Debian's Chromium, unless there is one, and
# Playwright in .venv, which drives it. Installing Chromium needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v chromium > /dev/null; then
  apt-get -q update
  apt-get -qy install --no-install-recommends chromium fonts-dejavu-core
fi
.venv/bin/pip install -q -e '.[browser]'
