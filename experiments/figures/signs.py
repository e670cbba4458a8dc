"""The command of earlier versions for `python -m experiments.studies.signs_figure`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("experiments.studies.signs_figure", run_name="__main__")
