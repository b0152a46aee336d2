"""Recurrent cells: their equations by family, the table that names them, and the loop that runs them over time.

Shapes are written in signatures, as in `Float[Array, "T B H"]`, and checked in tests (tests/conftest.py). A letter
means the same dimension in every folder of lm/:

    T  time steps of a window                  V  symbols of the vocabulary
    B  rows of a batch, read side by side      E  size of an embedding
    W  tokens of a window, inputs and targets  D  size of a layer's input
    R  tokens that a model reads               H  units of a layer
    N  tokens or targets in one long row       P  size of a layer's output h: H, unless it is projected
    L  length of an example                    GH  G gates of H units, side by side
    C  classes                                 S  states of a Markov chain

Time comes first, then the batch. `...` means any further dimensions, and a single letter has a leading space,
`" N"`, which tells linters that it is not a name. Numbers may be written out: `"T B 2"`, `"W-1 B"`.

Frameworks differ in conventions that change numbers without an error. Those of this folder, for all cells:

    convention         here                                    elsewhere
    carry of an LSTM   (c, h)                                  (h, c) in torch and Keras; (c, h) in flax
    order of gates     LSTM i, f, g, o; GRU r, z, g            Keras GRU: z, r, g; haiku LSTM: i, g, f, o
    biases             one per gate; a second one has a name   two in torch; two in a GRU of Keras, one in flax's LSTM
    forget bias        0; `lstm_bias` (initialisers.py) sets   added to the equations in haiku and in TensorFlow 1's
                       another                                 BasicLSTMCell (1); initialised to 1 in Keras
    reset of a GRU     `gru`: before the product;              after it in torch, flax and Keras; before it in haiku
                       `gru_reset_after`: after it
    update gate z      keeps the old state                     the same in torch, flax and Keras; Chung et al. (2014)
                                                               let z admit the new state
"""
