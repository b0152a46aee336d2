"""Shows the words whose vectors are nearest to that of a word, or to a sum of word vectors (an analogy).

    python launch.py --experiment=neighbours --data_dir=DIR --word=frog
    python launch.py --experiment=neighbours --vectors=FILE --word='king - man + woman' --nearest=5

The vectors are GloVe's (Pennington et al. 2014), or those of --vectors: a text file with one word and vector per line,
or a zip archive of such a file. Vectors are scaled to length 1 before they are added. A single word is no neighbour of
itself; the neighbours of a sum may include its words. Writes neighbours.json and neighbours.png to the workdir. The
picture shows the words by their first two principal components, and their vectors as rows of colours.
"""

import numpy as np

from experiments.pages import new_figure, png_of
from lm.data.vectors import WordVectors, load_glove, nearest_words, parse_expression, project, read_word_vectors, unit
from lm.errors import UserError
from lm.runs.files import make_own_directory, write_bytes, write_json


def run(config, workdir, data_dir=None, word="", vectors="", nearest=10):
    """Returns the content of neighbours.json."""
    if nearest < 1:
        raise UserError(f"--nearest={nearest} must be at least 1")
    loaded = read_word_vectors(vectors, f"--vectors={vectors}") if vectors else load_glove(data_dir)
    index = {each: row for row, each in reversed(list(enumerate(loaded.words)))}  # the first of equal words counts
    terms = parse_expression(word, index)
    query = np.sum([sign * unit(loaded.table[index[each]]) for sign, each in terms], axis=0)
    found = nearest_words(loaded, query, nearest, (terms[0][1],) if len(terms) == 1 else ())
    for each, cosine in found:
        print(f"{cosine:.4f}  {each}")
    content = {"word": word, "sha256": loaded.sha256, "neighbours": [{"word": w, "cosine": c} for w, c in found]}
    directory = make_own_directory(workdir, "neighbours.json", "neighbours.png")
    write_json(directory / "neighbours.json", content)
    shown = list(dict.fromkeys([*(each for _, each in terms), *(each for each, _ in found)]))
    write_bytes(directory / "neighbours.png", draw(loaded, [index[each] for each in shown]))
    print(f"wrote {directory}/neighbours.json and neighbours.png")
    return content


def draw(vectors: WordVectors, rows: list[int]) -> bytes:
    """Draws the vectors in `rows`, in two dimensions and as rows of colours. Returns a PNG."""
    table, words = vectors.table[rows], [vectors.words[row] for row in rows]
    figure = new_figure(12, 0.3 * len(rows) + 3)
    left, right = figure.subplots(1, 2)
    places = project(table) if len(rows) > 1 and table.shape[1] > 1 else np.zeros((len(rows), 2))
    left.scatter(*places.T, s=12)
    for place, each in zip(places, words, strict=True):
        left.annotate(each, place, xytext=(3, 3), textcoords="offset points", parse_math=False)
    left.margins(0.15)
    left.set(title="first two principal components", xticks=[], yticks=[])
    most = float(np.abs(table).max()) or 1.0
    image = right.imshow(table, aspect="auto", cmap="RdBu", vmin=-most, vmax=most, interpolation="nearest")
    right.set_yticks(range(len(words)), words, parse_math=False)
    right.set(title="the numbers of each vector", xlabel="dimension")
    figure.colorbar(image, ax=right)
    return png_of(figure)
