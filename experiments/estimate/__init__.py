"""What a training needs on devices that are absent, by their compilers; nothing runs.

`command.py` is `--compile-for`, `worker.py` compiles where the compiler is installed,
`trainings.py` says which steps, `batch.py` looks for the batch that fits, `report.py` prints.
"""
