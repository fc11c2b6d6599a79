"""Prints the SDK's table of error reasons from the descriptor set: reason -> (status code, remedy, retryable)."""

from __future__ import annotations

import sys
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def main(protoset: str) -> None:
    """Writes the table to standard output."""
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(protoset).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    # Options parse with their extensions only through message classes of the pool that declares them.
    options_class = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.EnumValueOptions"))
    extension = pool.FindExtensionByName("mip.v1.reason")
    message_factory.GetMessageClassesForFiles(["mip/v1/options.proto"], pool)
    enum = pool.FindEnumTypeByName("mip.v1.ErrorReason")
    print('"""Error reasons of MIP v1, generated from errors.proto by tools/gen_reasons.py."""')
    print()
    print("from typing import NamedTuple")
    print()
    print()
    print("class Reason(NamedTuple):")
    print('    """What an error reason means to a client."""')
    print()
    print("    code: str")
    print("    remedy: str")
    print("    retryable: bool")
    print()
    print()
    print("REASONS: dict[str, Reason] = {")
    for value in enum.values:
        if value.number == 0:
            continue
        rule = options_class.FromString(value.GetOptions().SerializeToString()).Extensions[extension]
        name = value.name.removeprefix("ERROR_REASON_")
        print(f"    {name!r}: Reason({rule.code!r}, {rule.remedy!r}, {rule.retryable}),")
    print("}")


if __name__ == "__main__":
    main(sys.argv[1])
