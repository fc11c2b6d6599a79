"""Filters over memories: the language of docs/spec/filter.md, its evaluation and what of it an index can answer."""

from memos_server.mem_os.filters.facets import facets_of, numbers_of, to_seconds
from memos_server.mem_os.filters.filter import Filter, parse

__all__ = ["Filter", "facets_of", "numbers_of", "parse", "to_seconds"]
