#!/usr/bin/env bash
# Makes the environments that compile for accelerators, one for each compiler, as the two want
# different packages: FOLDER/tpu and FOLDER/cuda, FOLDER being $OVSW_ACCELERATORS or .accelerators in
# the checkout. Name some to make only those. Does nothing where they are as below.
#
# Versions are pinned: another compiler gives other estimates.
set -euo pipefail
project=$(cd "$(dirname "$0")/../.." && pwd)
folder=${OVSW_ACCELERATORS:-$project/.accelerators}
common="jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 optax==0.2.8"
[ $# -gt 0 ] || set -- tpu cuda
for name in "$@"; do
  case $name in
    tpu) packages="$common libtpu==0.0.42.1" ;;
    cuda)
      packages="$common jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2"
      packages+=" nvidia-cuda-nvcc-cu12==12.9.86"
      ;;
    *)
      echo "$0: environment '$name' is unknown: name tpu, cuda or both." >&2
      exit 2
      ;;
  esac
  made=$folder/$name
  [ "$(cat "$made/packages" 2>/dev/null)" = "$packages" ] && continue
  echo "making the environment $name: $packages"
  [ -x "$made/bin/python" ] || "${PYTHON:-python3}" -m venv "$made"
  # shellcheck disable=SC2086  # one word a package
  "$made/bin/python" -m pip install -q $packages
  echo "$packages" >"$made/packages"
done
