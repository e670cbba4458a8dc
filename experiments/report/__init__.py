"""What a run says: summary, tables, progress."""
