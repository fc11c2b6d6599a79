"""Blobs in any S3-compatible store: `store.py` is the port, `bucket.py` what it asks of the store, `uploads.py`
unfinished uploads, `composing.py` how one becomes a blob, `keys.py` the names of objects, `failures.py` what errors
mean. Why so: docs/adr/0016-blobs-in-s3.md.
"""

from memos_server.blob_stores.s3.store import S3BlobStore

__all__ = ["S3BlobStore"]
