"""The reference server of MIP: MemOS over a commit log, a derived index and a blob store."""

__version__ = "0.1.0a1"
