"""Compiles the C of a frozen network so that each of its paths can be called."""

import ctypes
import shutil
import subprocess

import numpy as np

COMPILER = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
STRICT = ("-std=c99", "-ffp-contract=off", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
PATHS = {"portable": 1, "avx2": 2, "avx512bw": 3, "avx512": 4, "neon": 5}

# Behind the network's source: which paths this processor has, and one run on each of them.
_EACH_PATH = """
int has_path(int path);
void run_path(int path, void *arena, const float *input, float *output);

#if defined(CHOOSES)
int has_path(int path)
{
    switch (path) {
    case 1:
        return 1;
    case 2:
        return __builtin_cpu_supports("avx2");
    case 3:
        return __builtin_cpu_supports("avx512bw");
    case 4:
        return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vpopcntdq");
    }
    return 0;
}

void run_path(int path, void *arena, const float *input, float *output)
{
    Memory memory = {(unsigned char *)arena, input, output};
    switch (path) {
    case 1:
        NAMED(run, 1)(&memory);
        break;
    case 2:
        NAMED(run, 2)(&memory);
        break;
    case 3:
        NAMED(run, 3)(&memory);
        break;
    case 4:
        NAMED(run, 4)(&memory);
        break;
    }
}
#else
int has_path(int path)
{
    return path == PATH;
}

void run_path(int path, void *arena, const float *input, float *output)
{
    (void)path;
    net_run_in(arena, input, output);
}
#endif
"""


class Compiled:
    """The C of a network as a function of a path and a batch."""

    def __init__(self, frozen, folder, *flags, before="", compiler=COMPILER):
        frozen.to_c(folder, name="net")
        source = folder / "each_path.c"
        source.write_text(f'{before}#include "net.c"\n{_EACH_PATH}')
        library = folder / "net.so"
        command = [compiler, *STRICT, "-shared", "-fPIC", *(flags or ["-O0"])]
        subprocess.run([*command, source, "-o", library, "-lm"], check=True)
        self.library, self.frozen, self.folder = ctypes.CDLL(library), frozen, folder
        self.library.net_arena_bytes.restype = ctypes.c_size_t
        self.library.run_path.restype = None

    def has(self, path):
        return bool(self.library.has_path(PATHS[path]))

    def __call__(self, path, x):
        x = np.ascontiguousarray(x, np.float32)
        y = np.full((len(x), *self.frozen.output_shape), np.nan, np.float32)
        # What was in the arena before must not matter.
        arena = np.random.default_rng(0).bytes(self.library.net_arena_bytes())
        for sample, output in zip(x, y, strict=True):
            memory = np.frombuffer(bytearray(arena), np.uint8)
            pointers = (ctypes.c_void_p(a.ctypes.data) for a in (memory, sample, output))
            self.library.run_path(PATHS[path], *pointers)
        return y

    @property
    def paths(self):
        return [path for path in PATHS if self.has(path)]
