"""From a class name to its subclasses and its contrasts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Literal, NamedTuple

from llmseg_ros.classes import name_key
from llmseg_ros.config import SubclassesConfig
from llmseg_ros.subclasses.background import AskingStatus, BackgroundAsker
from llmseg_ros.subclasses.llm import MAX_AT_ONCE, LlmClient, LlmError, llm_wanted
from llmseg_ros.subclasses.packs import Pack, curated_packs, load_pack
from llmseg_ros.subclasses.parse import parse_answer
from llmseg_ros.subclasses.prompts import contrast_prompt, load_prompt
from llmseg_ros.subclasses.store import Answer, Question, Store, default_store_path

Source = Literal['llm', 'store', 'pack', 'name', 'typed']
Kind = Literal['subclasses', 'contrasts']

ASK_AGAIN_SECONDS = 86_400.0  # after an answer without any name in it
IMPORTED = 'imported from'


class Wish(NamedTuple):
    """What is to be known of a class: the names it stands for, or those it is no other than."""

    name: str
    kind: Kind = 'subclasses'

    def __repr__(self) -> str:
        return f'{self.name!r} ({self.kind})'


@dataclass(frozen=True)
class Subclasses:
    """The subclasses of a class, or its contrasts: what is near it or taken for it.

    Attributes:
        names: without the class name itself, which whoever uses them adds.
        source: 'llm' asked in this run, 'store' asked earlier, 'pack' a curated file or the
            user's own, 'name' none: the class stands under its own name alone, 'typed' given by
            hand in this run.
        asked_at: seconds since 1970, where a language model was asked.
    """

    names: tuple[str, ...]
    source: Source
    asked_at: float | None = None

    @property
    def answered(self) -> bool:
        """Whether a language model named them, and not people."""
        return self.source in ('llm', 'store')


class Resolver:
    """Resolve class names: the user's file, curated packs, the store, then a language model.

    Args:
        config: of these sources.
        known: by name or by wish, what was resolved elsewhere; it comes before all else.

    Raises:
        PackError: the user's file can't be used.
        PromptError: the prompt template can't be used.
        StoreError: the store is another program's or of a newer version.
        LlmError: the base URL is none.
    """

    def __init__(
        self,
        config: SubclassesConfig | None = None,
        known: Mapping[str, Subclasses] | Mapping[str | Wish, Subclasses] | None = None,
    ) -> None:
        self._config = config = config or SubclassesConfig()
        self._known = {as_wish(key): found for key, found in (known or {}).items()}
        self._packs: list[Pack] = [load_pack(config.file)] if config.file else []
        self._packs += curated_packs() if config.packs else ()
        self._above: dict[str, list[str]] = {}
        for pack in self._packs:
            for spelt, listed in pack.classes.items():
                for one in listed:
                    self._above.setdefault(name_key(one), []).append(spelt)
        self._prompts = {'subclasses': load_prompt(config.prompt), 'contrasts': contrast_prompt()}
        self._client = LlmClient(config) if llm_wanted(config) else None
        path = config.store or default_store_path()
        wanted = self._client or config.store or default_store_path().exists()
        self.store = Store(path) if wanted and config.store != 'off' else None
        self._asker: BackgroundAsker[Wish, Subclasses] = BackgroundAsker(
            lambda wish: self.ask(wish.name, kind=wish.kind)
        )
        self._asked: set[Question] = set()

    @property
    def status(self) -> AskingStatus:
        """How the asking in the background goes."""
        return self._asker.status

    @property
    def can_ask(self) -> bool:
        """Whether a language model is set."""
        return self._client is not None

    @property
    def requests(self) -> int:
        """Requests made to the language model so far."""
        return self._client.requests if self._client else 0

    def know(self, name: str, found: Subclasses) -> None:
        """Take these for the subclasses of a class from now on, before all else."""
        self._known = {**self._known, as_wish(name): found}

    def resolve(self, name: str, kind: Kind = 'subclasses') -> Subclasses:
        """Return the subclasses or contrasts known now, without waiting for the network."""
        if (found := self._known.get(as_wish(Wish(name, kind)))) is not None:
            return found
        for pack in self._packs:
            names = in_pack(pack, name, kind)
            if names is not None:
                return Subclasses(names, 'pack')
        return self.answered(name, kind) or Subclasses((), 'name')

    def aliases(self, name: str) -> tuple[str, ...]:
        """Return the other names that the first file with the class has for it."""
        key = name_key(name)
        return next((pack.other_names(name) for pack in self._packs if key in pack.keys), ())

    def names_taken(self, name: str, subclasses: Iterable[str]) -> tuple[str, ...]:
        """Return what no contrast may be beside a class with these subclasses.

        These are its own and other names in all files, and what one has it as a subclass of:
        beside kittens a cat is nothing else.
        """
        others = [other for pack in self._packs for other in pack.other_names(name)]
        above = self._above.get(name_key(name), ())
        return tuple(dict.fromkeys((name, *others, *subclasses, *above)))

    def same_class(self, name: str, other: str) -> bool:
        """Tell whether a file has both as names of one class, such as sofa and couch."""
        keys = name_key(name), name_key(other)
        return any(
            keys[0] in pack.keys and pack.keys[keys[0]] == pack.keys.get(keys[1])
            for pack in self._packs
        )

    def synonyms_among(self, names: Iterable[str]) -> list[list[str]]:
        """Return the groups of names that the first file to know them has as one class."""
        groups: dict[tuple[int, str], list[str]] = {}
        for name in names:
            key = name_key(name)
            for index, pack in enumerate(self._packs):
                if key in pack.keys:
                    groups.setdefault((index, pack.keys[key]), []).append(name)
                    break
        return [group for group in groups.values() if len(group) > 1]

    def resolve_all(
        self,
        names: Iterable[str],
        on_ready: Callable[[str, Subclasses], None] | None = None,
        kinds: Sequence[Kind] = ('subclasses',),
    ) -> dict[str, Subclasses]:
        """Return the subclasses known now of every name; ask the language model for the rest.

        Args:
            names: the class list in force; what an earlier list still waits for is given up.
            on_ready: called on another thread with every answer that arrives later; `resolve`
                gives it from then on. Without it nothing is asked.
            kinds: to ask for, the most wanted first.
        """
        names = list(names)
        if on_ready is not None and self._client is not None:
            ready = on_ready
            self._asker.want(
                self.missing(names, kinds), lambda wish, found: ready(wish.name, found)
            )
        return {name: self.resolve(name) for name in names}

    def ask_too(self, names: Iterable[str], kinds: Sequence[Kind] = ('subclasses',)) -> None:
        """Ask the language model for names beside the class list as well.

        They are asked for after those of the list, and given up with it; `resolve` gives what came.
        """
        if self._client is not None:
            self._asker.want_too(self.missing(names, kinds))

    def missing(self, names: Iterable[str], kinds: Sequence[Kind] = ('subclasses',)) -> list[Wish]:
        """Return what a language model is worth asking for, of names that may be resolved."""
        wishes = [Wish(name, kind) for name in names for kind in kinds]
        wishes.sort(key=lambda wish: kinds.index(wish.kind))
        return [wish for wish in wishes if self._worth_asking(wish)]

    def ask_all(self, wishes: Sequence[Wish], on_answer: Callable[[], None]) -> None:
        """Ask the language model for all of these, several at a time, and wait for the answers.

        Args:
            wishes: what is missing.
            on_answer: called after each.

        Raises:
            LlmError: it gave no answer to one of them; the resolver is closed then.
        """
        pool = ThreadPoolExecutor(MAX_AT_ONCE, thread_name_prefix='subclasses')
        try:
            for answer in as_completed(
                [pool.submit(self.ask, name, kind=kind) for name, kind in wishes]
            ):
                answer.result()
                on_answer()
        except BaseException:
            self.close()  # requests under way fail instead of being waited for
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def ask(self, name: str, refresh: bool = False, kind: Kind = 'subclasses') -> Subclasses:
        """Return the language model's subclasses or contrasts; waits until it has answered.

        It is asked once for a class, ever: by one process at a time, and only where the store has
        no answer yet or `refresh` asks for a new one.

        Raises:
            LlmError: no language model is set, or it gave no answer.
        """
        if self._client is None or self.store is None:
            raise LlmError(
                'no language model is set: give a base URL, or put a key into OPENAI_API_KEY'
            )
        question = self.question(name, kind)
        asked_from = time.time()
        with self.store.claim(question, lambda: self._asker.closed):
            if self._asker.closed:
                raise LlmError('nothing is asked any more, the program ends')
            answer = self.store.find(question)
            outdated = answer is not None and refresh and answer.asked_at < asked_from
            if answer is None or outdated or not self._lasts(answer):
                prompt = self._prompts[kind].render(name, self._config.n)
                text = self._client.ask(prompt, listed=kind)
                self.store.put(question, Answer(text, time.time()))
                self._asked.add(question)
        return self.answered(name, kind) or Subclasses((), 'name')

    def answered(self, name: str, kind: Kind = 'subclasses') -> Subclasses | None:
        """Return what a language model has answered, None where it holds no name."""
        question = self.question(name, kind)
        answer = self.store.find(question) if self.store else None
        names = self.names_in(answer) if answer else None
        if answer is None or names is None:
            return None
        return Subclasses(names, 'llm' if question in self._asked else 'store', answer.asked_at)

    def said(self, name: str, kind: Kind = 'subclasses') -> str:
        """Return the kept answer of the language model word for word; empty where there is none."""
        answer = self.store.find(self.question(name, kind)) if self.store else None
        return answer.text if answer else ''

    def origin(self, name: str, found: Subclasses, kind: Kind = 'subclasses') -> str:
        """Say where the names for a class are from: a file, or a model with prompt and day."""
        if found.source == 'pack':
            pack = next(pack for pack in self._packs if in_pack(pack, name, kind) is not None)
            own = pack.origins.get(pack.keys[name_key(name)], '') or pack.origin
            return f'{pack.path.name}{f": {own}" if own else ""}'
        if found.asked_at is None:
            return ''
        day = time.strftime('%Y-%m-%d', time.localtime(found.asked_at))
        if imported := imported_origin(self.said(name, kind)):
            return f'{imported}, imported {day}'
        prompt = self._config.prompt if kind == 'subclasses' else kind
        return f'language model {self._config.model}, prompt {prompt}, {day}'

    def question(self, name: str, kind: Kind = 'subclasses') -> Question:
        """Return what the answer for a class is kept under."""
        prompt = self._prompts[kind]
        return Question(name_key(name), prompt.key, self._config.n, self._config.model)

    def close(self) -> None:
        """Give up what is being asked, and close the store."""
        self._asker.close()
        if self._client is not None:
            self._client.close()
        if self.store is not None:
            self.store.close()

    def _worth_asking(self, wish: Wish) -> bool:
        if self.resolve(*wish).source != 'name':
            return False
        answer = self.store.find(self.question(*wish)) if self.store else None
        return answer is None or not self._lasts(answer)

    def names_in(self, answer: Answer) -> tuple[str, ...] | None:
        """Return the names of an answer, none of a file's list left empty; None of any other."""
        names = parse_answer(answer.text, self._config.n)
        return names if names or imported_origin(answer.text) else None

    def _lasts(self, answer: Answer) -> bool:
        """Tell whether an answer needn't be asked again: it is a list, or is new."""
        is_new = time.time() - answer.asked_at < ASK_AGAIN_SECONDS
        return is_new or self.names_in(answer) is not None


def as_wish(key: str | Wish) -> Wish:
    """Return a key under which case and blanks of the name make no difference."""
    wish = key if isinstance(key, Wish) else Wish(key)
    return wish._replace(name=name_key(wish.name))


def in_pack(pack: Pack, name: str, kind: Kind) -> tuple[str, ...] | None:
    """Return what a pack has for a class, None where it has no such list."""
    return pack.find(name) if kind == 'subclasses' else pack.find_contrasts(name)


def imported_answer(names: Iterable[str], origin: str) -> str:
    """Write a list of a file as the answer of a language model that says where it is from."""
    return json.dumps({'subclasses': list(names), IMPORTED: origin}, ensure_ascii=False)


def imported_origin(text: str) -> str:
    """Return where an answer in the store was imported from; empty where a model gave it."""
    try:
        origin = json.loads(text)[IMPORTED]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ''
    return origin if isinstance(origin, str) else ''
