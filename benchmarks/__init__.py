"""Measurements; `make bench` runs them all, side by side, and writes docs/benchmarks.*."""
