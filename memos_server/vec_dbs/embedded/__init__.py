"""The embedded search index: exact vectors, BM25 and filters in numpy, one folder of files per cube."""

from memos_server.vec_dbs.embedded.backend import EmbeddedIndex

__all__ = ["EmbeddedIndex"]
