"""Studies that are no training runs, each with its figure."""
