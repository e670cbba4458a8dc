"""Training runs, comparisons and figures; uses the public names of ovsw_jax only."""
