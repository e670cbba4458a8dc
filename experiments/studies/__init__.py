"""Studies that are no training runs, each with its figure and its command.

python -m experiments.studies.conv_graph    # or appendix_b_figure, signs_figure
"""
