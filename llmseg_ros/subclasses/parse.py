"""What a language model said, turned into names."""

# ruff: noqa: RUF001 (dashes, quotes and commas of other languages are what is looked for)

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from llmseg_ros.classes import clean_name, name_key
from llmseg_ros.subclasses.thoughts import is_thought, without_thoughts

PARSER_VERSION = 3  # raise it when the same answer may give other names
MAX_ANSWER_LENGTH = 20_000  # characters; what follows is repetition
MAX_LINE_LENGTH = 2_000
MAX_WORDS = 6  # of a name; more is a sentence
MAX_JSON_TRIES = 50

FENCE = re.compile(r'```[\w-]*')
TAG = re.compile(r'</?[a-zA-Z][^<>]{0,80}>')
LINK = re.compile(r'!?\[([^\[\]]{1,80})\]\([^()]{0,300}\)')
QUESTION = re.compile(r'^[^\S\n]*(?=Q\d*\s*:)', re.MULTILINE)
ANSWER_LABEL = re.compile(r'\s*(?:A\d*|answer|output|response)\s*:\s*', re.IGNORECASE)
BULLET = re.compile(
    r'\s*(?:'
    r'(?:[-*+•·◦‣▪●・–—]|#{1,6}|\(?(?:\d{1,3}|[a-zA-Z])[.)])(?: ?\[[ xX]?\])?\s+'
    r'|\(?\d{1,3}[.):、．：）](?=[^\d\s])|[•●・①-⑳]\s*'
    r')(?=\S)'
)
INLINE_NUMBER = re.compile(r'(?:^|\s)\(?\d{1,3}[.)]\s+')
INTRODUCTION = re.compile(
    r'.*(?::|：|\b(?:such as|includ(?:es|e|ing)|are|can be|sind|son|sont)\b)\s*'
)
EMPHASIS = re.compile(r'\s*(\*{1,3}|_{1,3}|`)(?P<text>[^*`]+?)\1')
BRACKETED = re.compile(r'\([^()]*\)?|\[[^\[\]]*\]?|（[^（）]*）?|【[^【】]*】?')
EXPLANATION = re.compile(r' [-–—−]+ |\s?(?:--|–|—|->|→|=>|: |:$|：)|\t')
SEPARATOR = re.compile(r'[,;|\n\t，；、،؛]|(?<=\s)(?:and|or|und|oder|et|ou|y|o|e|и|和)(?=\s)')
LEADING_WORD = re.compile(r'^(?:(?:and|or|und|oder|et|ou|y|e|a|an|the) )+', re.IGNORECASE)
STRING = re.compile(
    r'"((?:[^"\\\n]|\\.){1,200})"|(?<!\w)\'((?:[^\'\\\n]|\\.|(?<=\w)\'(?=\w)){1,200})\''
)
REFUSAL = re.compile(
    r"\b(?:sorry|apologi[sz]e|as an ai|i (?:can(?:no|['’])t|don['’]t|do not|am not able|am unable)"
    r'|unable to|tut mir leid|lo siento|désolée?|не могу|mi dispiace)\b'
    r'|抱歉|对不起|无法|申し訳|できません',
    re.IGNORECASE,
)
CHATTER = re.compile(
    r'(?:i|you|we|it|its|they|there|this|that|these|those|here|please|note that|but|however|let me'
    r'|sure|certainly|hope|if|of course|so on)\b'
    r'|(?:yes|no|others?|(?:and |many )?more|none|null|nil|na|n/a|etc|unknown|undefined|nothing'
    r'|list|subclass(?:es)?)\W*\Z',
    re.IGNORECASE,
)
NAME_KEYS = ('name', 'subclass', 'label', 'title', 'type')
INSIDE_NAMES = frozenset(" '’.&+/-·")


def parse_answer(text: str, most: int) -> tuple[str, ...]:
    """Find the subclass names in an answer: JSON, a list, a table, lines or a sentence.

    Args:
        text: untrusted, of any length.
        most: names to return at most.

    Returns:
        The names in the answer's order, none twice; empty where it holds none.
    """
    answer, _ = without_thoughts(text)
    text = FENCE.sub('\n', answer[:MAX_ANSWER_LENGTH])
    names: dict[str, str] = {}
    for item in _items(text):
        name = _as_name(item)
        if name is not None:
            names.setdefault(name_key(name), name)
    return tuple(names.values())[:most]


def is_long_list(text: str, n: int) -> bool:
    """Tell whether a text is JSON, cut short or not, with more than n items, repeated ones too."""
    answer, _ = without_thoughts(text)
    answer = FENCE.sub('\n', answer[:MAX_ANSWER_LENGTH]).lstrip()
    return answer.startswith(('{', '[')) and len(_json_items(answer)) > n


def _items(text: str) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, (list, dict)):
        return list(_strings(value))  # an empty list is no text to look for names in
    return _json_items(text) or _text_items(text)


def _json_items(text: str) -> list[str]:
    """Collect the strings of every JSON value in the text; of one cut short, what there is."""
    decoder = json.JSONDecoder()
    items: list[str] = []
    position = 0
    for _ in range(MAX_JSON_TRIES):
        start = re.compile(r'[\[{]').search(text, position)
        if start is None:
            break
        try:
            value, position = decoder.raw_decode(text, start.start())
            items += _strings(value)
        except (ValueError, RecursionError):
            position = start.end()
    opening = text.lstrip()[:1]
    if not items and opening in ('{', '['):
        quoted = text[text.find('[') + 1 :]
        items = [double or single for double, single in STRING.findall(quoted)]
    return items


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, dict):
        value = {key: part for key, part in value.items() if not is_thought(key)}
        nested = [part for part in value.values() if isinstance(part, (list, dict))]
        named = [value[key] for key in NAME_KEYS if isinstance(value.get(key), str)]
        if named:
            yield named[0]
        elif nested:
            yield from _strings(nested)
        elif len(value) == 1:
            yield from SEPARATOR.split(str(*value.values()))
        elif all(any(char.isdigit() for char in key) for key in value):
            yield from _strings(list(value.values()))
        else:
            yield from value  # name: description


def _text_items(text: str) -> list[str]:
    text = _own_answer(LINK.sub(r'\1', TAG.sub('\n', text)))
    lines = re.sub(r'[^\S\n\t]+', ' ', text).splitlines()
    lines = [line[:MAX_LINE_LENGTH] for line in lines if line.strip()]
    cells = _table_cells(lines)
    if cells:
        return cells
    listed = [line[match.end() :] for line in lines if (match := BULLET.match(line))]
    if len(listed) >= 2:
        return [_before_comma(item) for item in listed if not item.rstrip().endswith((':', '：'))]
    if REFUSAL.search(text[:300]):
        return []
    short = [
        line for line in lines if len(line.split()) <= MAX_WORDS - 1 and line[-1] not in ':.,：'
    ]
    if len(short) >= 3 and not any(SEPARATOR.search(line) for line in short):
        return short
    return _sentence_items(lines)


def _own_answer(text: str) -> str:
    """Cut off further questions the model made up, or the prompt it repeated first."""
    blocks = [block for block in QUESTION.split(text) if block.strip()]
    if not blocks:
        return ''
    block = blocks[0]
    if QUESTION.match(block):
        block = next((b for b in blocks if re.match(r'Q\s*:', b)), block)
        block = block.partition('\n')[2]
    label = ANSWER_LABEL.match(block)
    return block[label.end() :] if label else block


def _table_cells(lines: list[str]) -> list[str]:
    """Return the first worded cell of every row of a Markdown table, its head left out."""
    rows = [[cell.strip() for cell in line.strip().strip('|').split('|')] for line in lines]
    rule = [i for i, row in enumerate(rows) if len(row) > 1 and not ''.join(row).strip('-: ')]
    if not rule:
        return []
    body = [row for row in rows[rule[0] + 1 :] if len(row) > 1]
    worded = ([cell for cell in row if any(c.isalpha() for c in cell)] for row in body)
    return [cells[0] for cells in worded if cells]


def _before_comma(item: str) -> str:
    return re.split('[,;，；、،]', item, maxsplit=1)[0]


def _sentence_items(lines: list[str]) -> list[str]:
    """Split the line with the most names in it."""
    best: list[str] = []
    for line in lines:
        if len(INLINE_NUMBER.findall(line)) >= 2:
            parts = INLINE_NUMBER.split(line)[1:]
        else:
            bullet = BULLET.match(line)
            line = line[bullet.end() :] if bullet else line
            line = BRACKETED.sub('', line.strip().removeprefix('[').removesuffix(']'))
            introduction = INTRODUCTION.match(_before_comma(line))
            parts = SEPARATOR.split(line[introduction.end() :] if introduction else line)
        if len(parts) > len(best):
            best = parts
    return best


def _as_name(item: str) -> str | None:
    """Clean an item to a name; None where it isn't one."""
    bullet = BULLET.match(item)
    item = item[bullet.end() :] if bullet else item
    emphasis = EMPHASIS.match(item)
    item = emphasis['text'] if emphasis else item.replace('*', '').replace('`', '')
    item = BRACKETED.sub('', item).strip()
    item = EXPLANATION.split(item, maxsplit=1)[0]
    if item.startswith(('/', './', '../', '~/')):
        return None  # a path
    item = ''.join(char for char in item if unicodedata.category(char) != 'Cf')
    item = LEADING_WORD.sub('', _trim(item))
    if not item or CHATTER.match(item) or len(item.split()) > MAX_WORDS:
        return None
    if len(item) == 1 and item.isascii():
        return None
    if not any(c.isalpha() for c in item) or not all(_belongs(c) for c in item) or '//' in item:
        return None
    try:
        return clean_name(item)
    except ValueError:
        return None


def _trim(item: str) -> str:
    """Strip everything before the first letter or digit, and after the last (marks count)."""
    kept = [i for i, char in enumerate(item) if unicodedata.category(char)[0] in 'LN']
    if not kept:
        return ''
    end = kept[-1] + 1
    while end < len(item) and unicodedata.category(item[end])[0] == 'M':
        end += 1
    return item[kept[0] : end]


def _belongs(char: str) -> bool:
    return char in INSIDE_NAMES or unicodedata.category(char)[0] in 'LMN'
