"""Benchmarks; importing the package registers them."""

from tests.bench import measures

__all__ = ["measures"]
