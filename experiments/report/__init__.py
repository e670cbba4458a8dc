"""Progress, tables, the one-page summary of a run, its page for the browser, and lists of runs."""
