"""Client certificates: whom they authenticate, what is refused, and that revoking one holds from the next call on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509

from memos_server._pb.mip.v1.access_pb2 import ROLE_READER
from memos_server._pb.mip.v1.common_pb2 import SENSITIVITY_INTERNAL
from memos_server.api import certificates
from memos_server.configs import tls
from tests.conftest import MakeWorld, World
from tests.support.mip import Grant, Mip, RpcError
from tests.support.tls import Authority, Certified, TlsMip

REFUSED_BY_TRANSPORT = ("UNAVAILABLE", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a server's certificate for loopback."""
    made = tmp_path_factory.mktemp("tls")
    tls.init(made, ["localhost"], "ann")
    return made


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    """The authority whose certificates the server accepts."""
    return Authority(folder)


class Network:
    """A server that wants certificates, and its callers."""

    def __init__(self, world: World, authority: Authority) -> None:
        """Uses a running server."""
        self.world = world
        self.authority = authority
        self.clients: list[TlsMip] = []
        self.admin_token = (world.data / "admin.token").read_text().strip()
        self.admin = self.caller(authority.issue(["mip:principals/local-admin"]))

    def caller(self, shown: Certified | None, token: str = "") -> Mip:
        """Returns a caller with a certificate."""
        client = TlsMip(self.world.server.address, self.authority.pem, shown, token)
        self.clients.append(client)
        return client


@pytest.fixture
async def network(make_world: MakeWorld, folder: Path, authority: Authority) -> AsyncIterator[Network]:
    """A server with mutual TLS and a principal `ann`, who reads the cube `c`."""
    files = {"cert": folder / "server.pem", "key": folder / "server.key", "client_ca": folder / "ca.pem"}
    world = await make_world(tls=files, quotas={"unauthenticated_per_second": 5})
    made = Network(world, authority)
    await made.admin.CreateCube(cube_id="c")
    await made.admin.CreatePrincipal(principal_id="ann")
    grant = Grant(
        principal="principals/ann", resource="cubes/c", role=ROLE_READER, max_sensitivity=SENSITIVITY_INTERNAL
    )
    await made.admin.SetGrant(grant=grant)
    yield made
    for client in made.clients:
        await client.close()


async def refusal(caller: Mip) -> tuple[str, str]:
    """Returns code and reason of a refused call."""
    with pytest.raises(RpcError) as raised:
        await asyncio.wait_for(caller.GetCube(name="cubes/c"), 20)
    return raised.value.code, raised.value.reason


def id_of(shown: Certified) -> str:
    """Returns the id by which a certificate is revoked."""
    return tls.certificate_id(x509.load_pem_x509_certificate(shown.cert))


async def test_a_certificate_alone_says_who_calls_and_that_principal_s_grants_hold(network: Network) -> None:
    ann = network.caller(network.authority.issue(["mip:principals/ann"]))
    assert (await ann.GetCube(name="cubes/c")).cube.name == "cubes/c"
    with pytest.raises(RpcError) as raised:
        await ann.RollbackCube(name="cubes/c", to_revision=1)
    assert raised.value.code == "PERMISSION_DENIED"


async def test_the_certificate_that_tls_init_makes_authenticates_its_principal(network: Network, folder: Path) -> None:
    shown = Certified((folder / "client.pem").read_bytes(), (folder / "client.key").read_bytes())
    assert (await network.caller(shown).GetCube(name="cubes/c")).cube.name == "cubes/c"


async def test_names_of_other_kinds_beside_the_principal_s_do_not_matter(network: Network) -> None:
    ann = network.caller(network.authority.issue(["https://device.example.com", "MIP:principals/ann"]))
    assert (await ann.GetCube(name="cubes/c")).cube.name == "cubes/c"


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        (None, ("UNAUTHENTICATED", "UNAUTHENTICATED")),
        (["https://device.example.com"], ("UNAUTHENTICATED", "UNAUTHENTICATED")),
        (["mip:principals/ann", "mip:principals/local-admin"], ("UNAUTHENTICATED", "TOKEN_INVALID")),
        (["mip:principals/ann", "mip:principals/ann"], ("UNAUTHENTICATED", "TOKEN_INVALID")),
        (["mip:ann"], ("UNAUTHENTICATED", "TOKEN_INVALID")),
        (["mip:principals/ann/"], ("UNAUTHENTICATED", "TOKEN_INVALID")),
        (["mip:"], ("UNAUTHENTICATED", "TOKEN_INVALID")),
        (["mip:principals/nobody"], ("UNAUTHENTICATED", "TOKEN_REVOKED")),
    ],
)
async def test_a_certificate_that_names_no_one_principal_of_the_server_is_refused(
    network: Network, uris: list[str] | None, expected: tuple[str, str]
) -> None:
    assert await refusal(network.caller(network.authority.issue(uris))) == expected


async def test_certificates_of_others_expired_ones_and_servers_do_not_connect(network: Network, tmp_path: Path) -> None:
    tls.init(tmp_path, ["localhost"])
    foreign = Authority(tmp_path).issue(["mip:principals/local-admin"])
    expired = network.authority.issue(["mip:principals/ann"], after_s=-120, until_s=-60)
    early = network.authority.issue(["mip:principals/ann"], after_s=3600, until_s=7200)
    server = network.authority.issue(["mip:principals/ann"], server=True)
    for shown in (foreign, expired, early, server, None):
        assert await refusal(network.caller(shown)) == REFUSED_BY_TRANSPORT


async def test_a_connection_outlives_its_certificate_and_is_refused_then(network: Network) -> None:
    ann = network.caller(network.authority.issue(["mip:principals/ann"], until_s=5))
    await ann.GetCube(name="cubes/c")
    watching = asyncio.create_task(drain(ann))
    await asyncio.sleep(5.1)
    with pytest.raises(RpcError) as raised:
        await asyncio.wait_for(watching, 10)
    assert raised.value.reason == "TOKEN_EXPIRED"
    assert await refusal(ann) == ("UNAUTHENTICATED", "TOKEN_EXPIRED")


async def drain(caller: Mip) -> None:
    """Watches a cube until the stream ends."""
    async for _ in caller.WatchCube(name="cubes/c", start_revision=1):
        pass


async def test_a_token_beside_a_certificate_must_be_of_the_same_principal(network: Network) -> None:
    token = (await network.admin.IssueToken(principal="principals/ann")).token
    ann = network.authority.issue(["mip:principals/ann"])
    nobody = network.authority.issue([])
    assert (await network.caller(ann, token).GetCube(name="cubes/c")).cube.name == "cubes/c"
    # One that names nobody admits to the server, and the token says who calls.
    assert (await network.caller(nobody, token).GetCube(name="cubes/c")).cube.name == "cubes/c"
    assert await refusal(network.caller(ann, network.admin_token)) == ("UNAUTHENTICATED", "TOKEN_INVALID")
    assert await refusal(network.caller(ann, "garbage")) == ("UNAUTHENTICATED", "TOKEN_INVALID")


async def test_a_revoked_certificate_ends_its_streams_at_once_and_every_later_call(network: Network) -> None:
    first, second = (network.authority.issue(["mip:principals/ann"]) for _ in range(2))
    one, two = network.caller(first), network.caller(second)
    watching = asyncio.create_task(drain(one))
    await asyncio.sleep(0.3)
    assert not watching.done()
    await network.admin.RevokeToken(token_id=id_of(first))
    with pytest.raises(RpcError) as raised:
        await asyncio.wait_for(watching, 10)
    assert (raised.value.code, raised.value.reason) == ("UNAUTHENTICATED", "TOKEN_REVOKED")
    assert await refusal(one) == ("UNAUTHENTICATED", "TOKEN_REVOKED")
    # Also with a token of the principal, which by itself would do.
    token = (await network.admin.IssueToken(principal="principals/ann")).token
    assert await refusal(network.caller(first, token)) == ("UNAUTHENTICATED", "TOKEN_REVOKED")
    # Another certificate of the same principal is none of it.
    assert (await two.GetCube(name="cubes/c")).cube.name == "cubes/c"


async def test_a_revoked_token_ends_a_stream_that_a_certificate_authenticated_too(network: Network) -> None:
    issued = await network.admin.IssueToken(principal="principals/ann")
    both = network.caller(network.authority.issue(["mip:principals/ann"]), issued.token)
    watching = asyncio.create_task(drain(both))
    await asyncio.sleep(0.3)
    await network.admin.RevokeToken(token_id=issued.token_id)
    with pytest.raises(RpcError) as raised:
        await asyncio.wait_for(watching, 10)
    assert raised.value.reason == "TOKEN_REVOKED"


async def test_the_certificate_of_a_disabled_principal_is_refused(network: Network) -> None:
    ann = network.caller(network.authority.issue(["mip:principals/ann"]))
    await ann.GetCube(name="cubes/c")
    await network.admin.DisablePrincipal(name="principals/ann")
    assert await refusal(ann) == ("UNAUTHENTICATED", "TOKEN_REVOKED")


async def test_a_certificate_is_read_once_and_not_for_each_call(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    original = certificates.certificate_names

    def counted(cert: x509.Certificate) -> list[str]:
        read.append(cert.signature)
        return original(cert)

    monkeypatch.setattr(certificates, "certificate_names", counted)
    shown = network.authority.issue(["mip:principals/ann"])
    for _ in range(2):
        ann = network.caller(shown)
        for _ in range(10):
            await ann.GetCube(name="cubes/c")
    assert len(read) == 1


async def test_calls_with_a_certificate_are_not_counted_as_a_stranger_s(network: Network) -> None:
    ann = network.caller(network.authority.issue(["mip:principals/ann"]))
    for _ in range(30):
        await ann.GetCube(name="cubes/c")


async def test_a_server_that_verifies_no_certificate_takes_none_for_an_identity(
    make_world: MakeWorld, folder: Path, authority: Authority
) -> None:
    world = await make_world(tls={"cert": folder / "server.pem", "key": folder / "server.key"})
    caller = TlsMip(world.server.address, authority.pem, authority.issue(["mip:principals/local-admin"]))
    assert await refusal(caller) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    await caller.close()
