"""The process that trains: memory, compiled programs, signals, other processes."""
