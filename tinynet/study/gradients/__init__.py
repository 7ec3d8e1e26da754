"""Gradient checks: every backward against the slope that forward shows."""
