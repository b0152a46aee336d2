"""Builds the same recurrent language models in other libraries, which experiments/benchmark.py compares in speed."""
