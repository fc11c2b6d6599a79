"""The synchronous client: all but `transport.py` is generated from `_async` by tools/gen_sync_client.py."""
