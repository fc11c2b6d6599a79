"""Writes what the SDK's codec needs: the descriptor set without comments, and the types of its classes.

    python tools/gen_wire.py PROTOSET STUBS OUT

PROTOSET is the whole descriptor set, STUBS the folder of protoc's `*_pb2.pyi`, OUT that of the SDK's generated code.
The classes themselves are made at run time (memos_sdk/_core/pool.py), so nothing here needs a version of protobuf.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from google.protobuf import any_pb2, descriptor_pb2
from google.rpc import error_details_pb2, status_pb2

# What gRPC's rich errors are made of, beside MIP's own messages.
_ERRORS = (any_pb2, status_pb2, error_details_pb2)
_RUNTIME = '''"""The wire's message classes, made from mip.protoset when first named; the types are in __init__.pyi."""

from memos_sdk._core.pool import wire_type as __getattr__  # noqa: F401
'''


def main(protoset: str, stubs: str, out: str) -> None:
    """Writes `mip.protoset` and the package `wire`."""
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(protoset).read_bytes())
    for file in files.file:
        file.ClearField("source_code_info")
        file.DiscardUnknownFields()
    for module in _ERRORS:
        files.file.append(descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb))
    Path(out, "mip.protoset").write_bytes(files.SerializeToString(deterministic=True))
    package = Path(out, "wire")
    package.mkdir(parents=True)
    exports = []
    for path in sorted(Path(stubs).glob("*_pb2.pyi")):
        text = re.sub(r"^from mip\.v1 import", "from memos_sdk._gen.wire import", path.read_text("utf-8"), flags=re.M)
        (package / path.name).write_text(re.sub(r"[ \t]+$", "", text, flags=re.M), encoding="utf-8")
        exports.append(f"from memos_sdk._gen.wire.{path.stem} import *\n")
    (package / "__init__.pyi").write_text("".join(exports), encoding="utf-8")
    (package / "__init__.py").write_text(_RUNTIME, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
