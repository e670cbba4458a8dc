"""Progress, tables and the one-page summary of a run."""
