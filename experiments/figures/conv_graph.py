"""The command of earlier versions for `python -m experiments.studies.conv_graph`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("experiments.studies.conv_graph", run_name="__main__")
