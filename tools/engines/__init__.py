"""Neo4j, Weaviate, an S3 store and toxiproxy as local processes, from registries alone: for tests and for a first look.

`python -m tools.engines build` makes them (`build.py`), each of the classes runs one (`process.py`), and
`python -m tools.engines start` starts the three of a server in the background (`background.py`).
"""

from tools.engines.build import NotBuilt, built
from tools.engines.neo4j_engine import Neo4jEngine
from tools.engines.process import Engine, EngineError
from tools.engines.s3_engine import S3Engine
from tools.engines.toxiproxy import Toxiproxy
from tools.engines.weaviate_engine import WeaviateEngine

__all__ = ["Engine", "EngineError", "Neo4jEngine", "NotBuilt", "S3Engine", "Toxiproxy", "WeaviateEngine", "built"]
