"""A bare grpc.aio server: any method, bytes in, the same prepared bytes out. What the transport alone costs."""

from __future__ import annotations

import asyncio
import sys

import grpc


class _Any(grpc.GenericRpcHandler):
    def __init__(self, answer: bytes) -> None:
        async def unary(raw: bytes, context: object) -> bytes:
            return answer

        self._handler = grpc.unary_unary_rpc_method_handler(unary)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Returns the one handler."""
        return self._handler


async def main() -> None:
    """Listens on a free port, says where, and serves until it is ended."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Any(bytes(int(sys.argv[1]))),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
