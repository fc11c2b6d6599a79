"""The command line client `memos`."""
