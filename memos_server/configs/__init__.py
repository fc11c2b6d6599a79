"""Settings, the data folder, TLS and the choice of backends: what a server needs before it starts."""
