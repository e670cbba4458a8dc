"""Training: `step.py` is what is compiled, `loop.py` trains, `chain.py` makes the optimizer."""
