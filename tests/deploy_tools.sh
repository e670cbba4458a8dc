#!/usr/bin/env bash
# Installs what checks the C of frozen networks elsewhere: clang, compilers for 64-bit Arm and for
# microcontrollers, and emulators of both. Debian's packages; installing them needs root.
set -euo pipefail
for tool in clang aarch64-linux-gnu-gcc arm-none-eabi-gcc qemu-aarch64 qemu-system-arm; do
  command -v "$tool" > /dev/null && continue
  apt-get -q update
  apt-get -qy install --no-install-recommends clang gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
    gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-user qemu-system-arm
  break
done
