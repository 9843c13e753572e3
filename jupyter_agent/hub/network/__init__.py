"""The hub on the network: connections, HTTP and gRPC, and the composition of its parts behind them."""
