"""The engines themselves: they start, keep what they hold, ask for secrets, speak TLS, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import engines
from tools.engines import Engine, EngineError, Neo4jEngine, S3Engine, Toxiproxy, WeaviateEngine

pytestmark = pytest.mark.engines

Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Engine] = []

    def make(kind: type[Engine], **options: Any) -> Engine:
        engines.need(kind.name)
        if kind is Neo4jEngine:
            options = {"quick": True, **options}
        engine = kind(tmp_path / kind.name, **options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.kill()


def count_cypher(engine: Neo4jEngine, statement: str) -> int:
    import neo4j

    trust: dict[str, Any] = {}
    if engine.tls:
        trust = {"encrypted": True, "trusted_certificates": neo4j.TrustCustomCAs(str(engine.ca_file))}
    uri = engine.uri.replace("bolt+s:", "bolt:")
    with neo4j.GraphDatabase.driver(uri, auth=("neo4j", engine.password), **trust) as driver:
        value: int = driver.execute_query(statement).records[0][0]
        return value


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_neo4j_keeps_what_it_holds_over_a_kill(make: Make, tls: bool) -> None:
    engine = make(Neo4jEngine, tls=tls)
    engine.start()
    ports = dict(engine.ports)
    assert count_cypher(engine, "CREATE (n:Kept) RETURN count(n)") == 1
    engine.kill()
    assert engine.pid is None
    engine.start()
    assert engine.ports == ports
    assert count_cypher(engine, "MATCH (n:Kept) RETURN count(n)") == 1


def test_neo4j_refuses_a_wrong_password(make: Make) -> None:
    import neo4j

    engine = engines.neo4j()
    with (
        neo4j.GraphDatabase.driver(engine.uri, auth=("neo4j", "not the password")) as driver,
        pytest.raises(neo4j.exceptions.AuthError),
    ):
        driver.verify_connectivity()


def test_neo4j_is_emptied_and_keeps_its_schema(make: Make) -> None:
    engine = engines.neo4j()
    engines.clean_neo4j()
    count_cypher(engine, "UNWIND range(1, 2500) AS i CREATE (n:Wiped {i: i})-[:TO]->(:Wiped) RETURN count(n)")
    engines.clean_neo4j()
    assert count_cypher(engine, "MATCH (n) RETURN count(n)") == 0


def weaviate_status(engine: WeaviateEngine, key: str | None) -> int:
    scheme = "https" if engine.tls else "http"
    request = urllib.request.Request(f"{scheme}://127.0.0.1:{engine.ports['http']}/v1/schema")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=10, context=engine._context()) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_weaviate_asks_for_its_key_and_comes_back_after_a_kill(make: Make, tls: bool) -> None:
    engine = make(WeaviateEngine, tls=tls)
    engine.start()
    assert weaviate_status(engine, None) == 401
    assert weaviate_status(engine, "not the key") == 401
    assert weaviate_status(engine, engine.api_key) == 200
    engine.kill()
    engine.start()
    assert weaviate_status(engine, engine.api_key) == 200


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_s3_store_keeps_what_it_holds_over_a_kill(make: Make, tls: bool) -> None:
    engine = make(S3Engine, tls=tls)
    engine.start()
    client = engine.client()
    client.put_object(Bucket="memos", Key="a/b", Body=b"kept")
    engine.kill()
    engine.start()
    assert client.get_object(Bucket="memos", Key="a/b")["Body"].read() == b"kept"
    client.close()


def test_toxiproxy_cuts_and_mends(make: Make) -> None:
    proxy, store = engines.toxiproxy(), engines.s3()
    port = proxy.proxy("s3", store.ports["s3"])
    url = f"http://127.0.0.1:{port}/healthy"

    def seconds() -> float:
        start = time.monotonic()
        urllib.request.urlopen(url, timeout=5).close()
        return time.monotonic() - start

    assert seconds() < 0.4
    proxy.poison("s3", "latency", {"latency": 500, "jitter": 0})
    assert seconds() >= 0.5
    proxy.cut("s3")
    with pytest.raises(OSError):
        seconds()
    proxy.mend("s3")
    assert seconds() < 0.4
    proxy.remove("s3")


def test_an_engine_that_does_not_start_says_what_it_said(make: Make) -> None:
    engine = make(Neo4jEngine, settings={"server.memory.pagecache.size": "much"})
    with pytest.raises(EngineError, match=r"ended with status 70 while it started(.|\n)*much"):
        engine.start()
    assert engine.pid is None


def test_an_engine_runs_once_in_a_folder(make: Make, tmp_path: Path) -> None:
    engine = make(Toxiproxy)
    engine.start()
    with pytest.raises(EngineError, match="runs already"):
        Toxiproxy(tmp_path / "toxiproxy").start()


def test_an_engine_is_stopped_by_another_process_than_its_starter(make: Make, tmp_path: Path) -> None:
    engine = make(Toxiproxy)
    engine.start()
    code = "import sys; from tools.engines import Toxiproxy; Toxiproxy(sys.argv[1]).stop()"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "toxiproxy")], check=True, timeout=60)
    assert engine.pid is None


def test_engines_end_when_their_starter_is_killed(make: Make, tmp_path: Path) -> None:
    engines.need("toxiproxy")
    code = (
        "import sys, time, threading; from tools.engines import Toxiproxy; engine = Toxiproxy(sys.argv[1]);"
        # As tests do: from a thread that is gone long before the process.
        "thread = threading.Thread(target=engine.start); thread.start(); thread.join();"
        "print(engine.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "orphan")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert psutil.pid_exists(pid)
        os.kill(starter.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the engine outlived its starter"
        time.sleep(0.05)
