"""From a class name to its subclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmseg_ros.config import SubclassesConfig
from llmseg_ros.subclasses.packs import curated_packs

Source = Literal['llm', 'store', 'pack', 'name']


@dataclass(frozen=True)
class Subclasses:
    """The subclasses of a class.

    Attributes:
        names: without the class name itself, which whoever uses them adds.
        source: 'llm' just asked, 'store' asked earlier, 'pack' a curated or the user's own file,
            'name' none: the class stands under its own name alone.
    """

    names: tuple[str, ...]
    source: Source


class Resolver:
    """Resolve class names at once: from a curated pack, else to the name alone."""

    def __init__(self, config: SubclassesConfig = SubclassesConfig()) -> None:  # noqa: B008
        self._packs = curated_packs() if config.packs else ()

    def resolve(self, name: str) -> Subclasses:
        """Return the subclasses known now, without waiting for anything."""
        for pack in self._packs:
            names = pack.find(name)
            if names is not None:
                return Subclasses(names, 'pack')
        return Subclasses((), 'name')
