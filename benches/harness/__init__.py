"""What the benchmarks share: figures, turns, processes, calls, texts."""
