"""The wire's message classes, made from mip.protoset when first named; the types are in __init__.pyi."""

from memos_sdk._core.pool import wire_type as __getattr__  # noqa: F401
