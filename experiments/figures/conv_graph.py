"""The command of earlier versions for `python -m experiments.studies.conv_graph_figure`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("experiments.studies.conv_graph_figure", run_name="__main__")
