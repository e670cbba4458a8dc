"""The training process: memory, compiled programs, signals, other processes."""
