"""The 1000 names of ImageNet-1k, and which of them a word has nothing to do with."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from llmseg_ros.classes import name_key, singular_words

PREPOSITIONS = frozenset({'of', 'in', 'with', 'for', 'on'})
LEAST_PART = 3  # letters of a part of a compound; shorter ones are parts of too many words


@lru_cache(maxsize=1)
def imagenet_names() -> tuple[str, ...]:
    """Return the ImageNet-1k class names, synonyms separated by commas, in class order.

    Out of timm's files, as its ImageNetInfo has them: to import timm takes seconds.

    Raises:
        ImportError: timm isn't installed.
    """
    timm = find_spec('timm')
    if timm is None or timm.origin is None:
        raise ModuleNotFoundError("No module named 'timm'", name='timm')
    folder = Path(timm.origin).parent / 'data' / '_info'
    lines = (folder / 'imagenet_synset_to_lemma.txt').read_text(encoding='utf-8').splitlines()
    lemmas = dict(line.split('\t', 1) for line in lines)
    return tuple(lemmas[id] for id in (folder / 'imagenet_synsets.txt').read_text().split())


def synonyms(name: str) -> list[str]:
    """Return the synonyms an ImageNet name consists of."""
    return [synonym.strip() for synonym in name.split(',')]


def head_word(name: str) -> str:
    """Return the word of a name that says what the thing is: the last before a preposition.

    Singular; '' where there is none. "child in a sweatshirt" is a child, a "sheep dog" a dog.
    """
    words = _words(name)
    return words[-1] if words else ''


def names_only_modified_by(word: str) -> list[int]:
    """Return the indices of the ImageNet names in which a word says what kind and never what.

    A sentence encoder takes "sheep" for "Old English sheepdog" and "bird" for "birdhouse", which
    share a word; in English compounds the last part tells the thing.

    Args:
        word: singular, as `head_word` returns it.
    """
    begun, ended = _names_by_part()
    return sorted(begun.get(word, frozenset()) - ended.get(word, frozenset()))


@lru_cache(maxsize=1)
def _names_by_part() -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """Return the indices of the ImageNet names by what one of their words begins or is, and by
    what the head of one of their synonyms ends with.
    """
    begun, ended = defaultdict(set), defaultdict(set)
    for index, name in enumerate(imagenet_names()):
        for words in map(_words, synonyms(name)):
            for word in words:
                # what is left of a compound is no ending such as -er
                for length in (*range(LEAST_PART, len(word) - LEAST_PART + 1), len(word)):
                    begun[word[:length]].add(index)
            for start in range(max(1, len(words[-1]) - LEAST_PART + 1)):
                ended[words[-1][start:]].add(index)
    return dict(begun), dict(ended)


def _words(name: str) -> list[str]:
    """Return the words of a name as far as its first preposition, singular."""
    words = singular_words(name_key(name).replace("'s", ''))
    end = next((i for i, word in enumerate(words) if word in PREPOSITIONS), len(words))
    return words[:end]


def is_latin(name: str) -> bool:
    """Return whether all letters of a name are Latin; digits and signs are no letters."""
    letters = filter(str.isalpha, unicodedata.normalize('NFKC', name))
    return all(unicodedata.name(letter, '').startswith('LATIN') for letter in letters)
