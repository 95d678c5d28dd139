"""Speed and memory beside audiocraft's own loops; `python -m benchmarks`."""
