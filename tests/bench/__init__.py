"""Benchmarks; importing the package registers them."""

from tests.bench import events, hub, known, measures, packages, runs, wire

__all__ = ["events", "hub", "known", "measures", "packages", "runs", "wire"]
