"""Benchmarks; importing the package registers them."""

from tests.bench import events, hub, measures, packages, wire

__all__ = ["events", "hub", "measures", "packages", "wire"]
