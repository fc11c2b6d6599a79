"""The search index in Weaviate: a collection per dimension of vectors, a tenant per cube, an object per version."""

from memos_server.vec_dbs.weaviate.backend import WeaviateIndex

__all__ = ["WeaviateIndex"]
