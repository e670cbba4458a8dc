"""Frozen networks as C: `steps` says what is computed, `memory` where, `source` how it reads.

The kernels are C files in `sources`, which are compiled as they stand; Python puts those that a
network uses into one file, with its constants and the calls.
"""
