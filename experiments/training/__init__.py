"""Training: `step.py` is compiled, `loop.py` trains, `make_optimizer.py` makes the optimizer."""
