"""MIP in front of MemOS (PyPI `MemoryOS`), without its language model. See README.md."""
