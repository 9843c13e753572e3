"""What the hub does for each command of the protocol: a module for each kind, and one table of them all."""
