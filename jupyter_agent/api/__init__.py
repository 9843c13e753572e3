"""The agent's HTTP API on ``agent.sock``: requests in, JSON and streams out. It holds no state of its own."""
