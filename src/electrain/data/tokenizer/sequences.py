"""Tokenizers for sequences without spaces, such as proteins, genomes and SMILES: characters, or k of them at a time.

The k-mers do not overlap. Overlapping ones, as in DNABERT, give a masked token away: its neighbours hold all of its
letters (Zhou et al. 2023, "DNABERT-2", section 2). What is no whole k-mer of the vocabulary becomes single characters:
the end of a sequence, and k-mers with a rare letter (as in Dalla-Torre et al. 2023, "Nucleotide Transformer").
"""

import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from electrain.data.tokenizer.tokenizer import SPECIAL_TOKENS, add_special_tokens

# Counts are halved to the most frequent ones beyond so many, which keeps them below a gigabyte of memory.
_MOST_COUNTED = 1 << 22


def sequence_tokenizer(vocabulary: dict[str, int], k: int) -> Tokenizer:
    """Cuts a text, whose white space is left out, into pieces of k characters, and those unknown into characters.

    Case is kept: in SMILES, c and C are different atoms. White space is left out, because files break sequences into
    lines.
    """
    # Without merges, BPE leaves single characters of whatever is not a whole token.
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="[UNK]", ignore_merges=True))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.BertNormalizer(
                clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False
            ),
            normalizers.Replace(Regex(r"\s+"), ""),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(f".{{1,{k}}}"), "isolated")
    backend.decoder = decoders.Fuse()
    if vocabulary:
        add_special_tokens(backend)
    return backend


def sequence_vocabulary(
    lines: Iterable[str], alphabet: Iterable[str], k: int, vocabulary_size: int
) -> tuple[dict[str, int], float]:
    """{token: id} of the special tokens, the alphabet and the most frequent k-mers, and the share of k-mers covered.

    Args:
        lines: the normalised texts.
        alphabet: single characters, the most frequent first.
    Returns: the same for the same lines; the share is of all places of k characters, 1 for k = 1.
    """
    tokens = [*SPECIAL_TOKENS.values(), *alphabet]
    known, counts, places = set(tokens), Counter[str](), 0
    for line in lines if k > 1 else ():
        found = re.findall(f".{{{k}}}", line)
        places += len(found)
        counts.update(found)
        if len(counts) > _MOST_COUNTED:
            counts = Counter(dict(counts.most_common(_MOST_COUNTED // 2)))
    # A k-mer with a letter outside the alphabet would hide that letter from [UNK].
    kept = [(one, count) for one, count in counts.items() if count > 1 and known.issuperset(one)]
    kept = sorted(kept, key=lambda pair: (-pair[1], pair[0]))[: max(0, vocabulary_size - len(tokens))]
    covered = sum(count for _, count in kept) / places if places else 1.0
    return {token: number for number, token in enumerate([*tokens, *(one for one, _ in kept)])}, covered
