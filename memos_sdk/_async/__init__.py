"""The asynchronous client. The synchronous one is generated from it by tools/gen_sync_client.py."""
