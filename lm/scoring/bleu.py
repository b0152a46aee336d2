"""BLEU: overlap of generated texts with references in n-grams of one to four words (Papineni et al. 2002)."""

from collections.abc import Sequence


def bleu(written: Sequence[str], true: Sequence[str]) -> float:
    """Corpus BLEU from 0 to 100 by sacrebleu (Post 2018). Spaces separate the words of a text."""
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(written), [list(true)], tokenize="none", force=True).score)
