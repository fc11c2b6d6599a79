"""How the server is watched: calls counted, metrics and traces exported, backends probed."""
