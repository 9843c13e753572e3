"""Benchmarks; importing the package registers them."""

from tests.bench import events, hub, measures, wire

__all__ = ["events", "hub", "measures", "wire"]
