"""GetCapabilities: what this server declares. Declared means that it works."""

from __future__ import annotations

from collections.abc import Sequence

from memos_server import __version__
from memos_server._pb.mip.v1.server_service_pb2 import (
    UNKNOWN_FIELDS_KEPT,
    EmbeddingModel,
    GetCapabilitiesRequest,
    GetCapabilitiesResponse,
    Limits,
)
from memos_server.mem_os.context import Call, Mos

PROTOCOL_VERSION = "1.0-alpha"


async def get_capabilities(mos: Mos, call: Call, request: GetCapabilitiesRequest) -> GetCapabilitiesResponse:
    """See ServerService.GetCapabilities."""
    del call, request
    settings, quotas = mos.settings.limits, mos.settings.quotas
    response = GetCapabilitiesResponse(
        protocol_version=PROTOCOL_VERSION,
        server_name="memos",
        server_version=__version__,
        services=mos.services,
        levels=mos.levels,
        features=_features(mos),
        payloads=mos.types.payloads(),
        extension_types=mos.types.extension_types(),
        unknown_fields=UNKNOWN_FIELDS_KEPT,
        embedding_models=_models(mos),
        audience=mos.audience,
        notices=mos.embeddings.notices(),
        limits=Limits(
            max_request_bytes=settings.max_request_bytes,
            max_response_bytes=settings.max_response_bytes,
            max_batch_memories=settings.max_batch_memories,
            max_page_size=settings.max_page_size,
            max_top_k=settings.max_top_k,
            max_blob_bytes=settings.max_blob_bytes,
            request_id_retention_seconds=settings.request_id_retention_seconds,
            max_search_cubes=settings.max_search_cubes,
            max_calls_per_second=quotas.calls_per_second,
            max_open_streams=quotas.open_streams,
            max_bytes_per_second=quotas.bytes_per_second,
            max_bulk_memories=settings.max_bulk_memories,
            max_bulk_bytes=settings.max_bulk_bytes,
            max_unfinished_upload_bytes=mos.blobs.max_unfinished_upload_bytes(),
        ),
    )
    if mos.keeper.problems():
        # Anybody may ask, without a token, so it is not told how many cubes there are of which this is true.
        response.notices.append(
            "a search index cannot be used or brought up to date; searches name its cube in stale or unreachable"
        )
    return response


def _features(mos: Mos) -> Sequence[str]:
    features = ["search.as_of", "search.graph", "search.lexical", "search.vector"]
    return [*features, "search.embedding"] if mos.embeddings.model is not None else features


def _models(mos: Mos) -> list[EmbeddingModel]:
    model = mos.embeddings.model
    if model is None:
        return []
    return [
        EmbeddingModel(
            name=model.name,
            dimension=model.dimension,
            max_tokens=model.max_tokens,
            available=True,
            is_default=model.name == mos.embeddings.default_model,
            runtime=model.runtime,
        )
    ]
