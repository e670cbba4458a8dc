"""The command of earlier versions for `python -m experiments.studies.appendix_b_figure`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("experiments.studies.appendix_b_figure", run_name="__main__")
