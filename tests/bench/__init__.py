"""Benchmarks; importing the package registers them."""

from tests.bench import hub, measures, wire

__all__ = ["hub", "measures", "wire"]
