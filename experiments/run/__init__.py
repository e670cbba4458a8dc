"""Run folders: `folder.py` writes them (metrics.jsonl too), `reader.py` reads them."""
