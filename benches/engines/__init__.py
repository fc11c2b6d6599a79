"""What a server over Neo4j and Weaviate costs beside the same work done with their drivers: see bench.py."""
