"""Recurrent cells: their equations by family, the table that names them, and the loop that runs them over time.

Shapes are written in signatures, as in `Float[Array, "T B H"]`, and checked in tests (tests/conftest.py). A letter
means the same dimension in every folder of lm/, unless a docstring gives it another meaning:

    T  time steps of a window                  V  symbols of the vocabulary
    B  rows of a batch                         E  embedding dimension
    W  tokens of a window, inputs and targets  D  size of a layer's input
    R  tokens that a model reads               H  hidden size of a layer
    N  tokens or targets in one long row       P  size of a layer's output h: H, unless it is projected
    L  length of an example                    GH  G gates of H units, concatenated
    C  classes                                 S  states of a Markov chain

Time comes first, then the batch. `...` means any further dimensions. A single letter has a leading space, `" N"`, so
that linters do not read it as a name. A dimension may also be a number or a difference: `"T B 2"`, `"W-1 B"`.

Frameworks differ in conventions that change results without raising an error. All cells here follow these:

    convention         here                                    elsewhere
    carry of an LSTM   (c, h)                                  (h, c) in torch and Keras; (c, h) in flax
    order of gates     LSTM i, f, g, o; GRU r, z, g            Keras GRU: z, r, g; haiku LSTM: i, g, f, o
    biases             one per gate; a second one is b_h       two in torch and in Keras's GRU; one in flax's LSTM
    forget bias        0; `lstm_bias` (initialisers.py) sets   1, added in the equations, in haiku and in TensorFlow 1's
                       another value                           BasicLSTMCell; initialised to 1 in Keras
    reset of a GRU     `gru`: before the product;              after it in torch, flax and Keras; before it in haiku
                       `gru_reset_after`: after it
    update gate z      z = 1 keeps the old state               the same in torch, flax and Keras; z = 1 takes the new
                                                               state in Chung et al. (2014)
"""
