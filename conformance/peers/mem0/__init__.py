"""MIP in front of mem0 (PyPI `mem0ai`), without its language model. See README.md."""
