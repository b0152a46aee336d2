"""The same recurrent language models in other libraries, for side-by-side measurements: experiments/benchmark.py."""
