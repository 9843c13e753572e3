"""Speaking to an OpenFlow server: the wire protocol, a client that keeps its connection, and access rights."""
