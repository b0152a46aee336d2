"""Recurrent cells: their equations by family, the table that names them, and the loop that runs them over time.

Shapes are written in signatures, as in `Float[Array, "T B H"]`, and checked in tests (tests/conftest.py). A letter
means the same dimension in every folder of lm/:

    T  time steps of a window                  V  symbols of the vocabulary
    B  rows of a batch, read side by side      E  size of an embedding
    W  tokens of a window, inputs and targets  D  size of a layer's input
    N  tokens or targets in one long row       H  units of a layer
    L  length of an example                    P  size of a projected output
    C  classes                                 GH  G gates of H units, side by side

Time comes first, then the batch. `...` stands for any further dimensions, and a single letter has a leading space,
`" N"`, which tells linters that it is no type. Numbers may be written out: `"T B 2"`, `"W-1 B"`.
"""
