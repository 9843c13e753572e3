"""Benchmarks; importing the package registers them."""

from tests.bench import environments, events, hub, known, measures, packages, runs, wire

__all__ = ["environments", "events", "hub", "known", "measures", "packages", "runs", "wire"]
