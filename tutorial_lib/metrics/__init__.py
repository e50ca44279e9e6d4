"""Measures of explanations, one file a family."""

from tutorial_lib.metrics.axioms import completeness_gap

__all__ = ["completeness_gap"]
