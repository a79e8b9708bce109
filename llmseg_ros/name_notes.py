"""Class names that are accepted, but will not be found as their user means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmseg_ros.encoders.base import Encoder, ListEncoder
from llmseg_ros.subclasses.resolver import Resolver


def notes_on_names(names: Sequence[str], encoder: Encoder, resolver: Resolver) -> Iterator[str]:
    """Give a sentence for every name that is another's synonym, or strange to the encoder.

    Args:
        names: accepted, each once.
        encoder: that is to find them.
        resolver: whose files know synonyms.
    """
    for first, *others in resolver.synonyms_among(names):
        also = ', '.join(map(repr, others))
        yield (
            f'{first!r} and {also} are one class to the subclass files, and will share its pixels '
            'by chance: keep one of them'
        )
    if isinstance(encoder, ListEncoder) and names:
        for name in encoder.unknown_names(names):
            yield (
                f'{name!r} resembles nothing the encoder knows, so it will hardly be found: '
                'say it in English, or in other words'
            )
