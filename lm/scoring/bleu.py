"""BLEU, the overlap of written texts with true ones in runs of one to four words (Papineni et al. 2002)."""

from collections.abc import Sequence


def bleu(written: Sequence[str], true: Sequence[str]) -> float:
    """BLEU of a corpus, 0 to 100, by sacrebleu (Post 2018), of texts whose words are separated by spaces."""
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(written), [list(true)], tokenize="none", force=True).score)
