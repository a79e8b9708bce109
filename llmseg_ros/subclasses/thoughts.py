"""What a reasoning model thought, told from what it answered."""

# ruff: noqa: RUF001 (wide bars are among what is looked for)

from __future__ import annotations

import re

MAX_LENGTH = 200_000  # characters; no model thinks longer

WORDS = (
    r'(?:think(?:ing)?|thoughts?|(?:chain|train)[_ -]of[_ -]thoughts?|thought[_ -]process'
    r'|reason(?:ing)?|reflect(?:ion|ing)?|cot|scratch[_-]?pad|(?:inner[_-]?)?monologue|rationale)'
)
TAG_NAME = rf'(?:[a-z]{{1,16}}:)?(?:ant)?{WORDS}'  # <seed:think>, <antThinking>
ATTRIBUTES = r'(?:\s[^<>]{0,200})?'
MESSAGE = (
    r'[^<>]{0,80}(?:<\|constrain\|>[^<>]{0,40})?(?:<\|message\|>|\Z)'  # a channel's head, rest
)

# A thought begins: <think>, [THINK], ◁think▷, <|begin_of_thought|>, <|channel|>analysis<|message|>
# (gpt-oss), <|channel>thought (Gemma), and where a server strips special tokens, their remains.
OPENINGS = (
    rf'(?:<|&lt;){TAG_NAME}{ATTRIBUTES}(?:>|&gt;)',
    rf'\[{WORDS}\]',
    rf'◁\s?{WORDS}\s?▷',
    rf'<[|｜](?:(?:begin|start)[_▁](?:of[_▁])?)?{WORDS}[|｜]>',
    r'<unused94>(?:thought)?',
    r'<\|?channel\|?>\s*(?:thought|thinking)\b(?:<\|message\|>)?',
    rf'(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(?:analysis|commentary)\b{MESSAGE}',
    r'\A\s*(?:assistant)?(?-i:analysis)(?-i:(?=[A-Z]))',
    r'\A\s*thinking\.\.\.\s*\n',
    r'\A\s*here is my thought process:',
)
# A thought ends, its beginning seen or not: it may be in the prompt, where the template put it.
CLOSINGS = (
    rf'(?:<|&lt;)\s?/\s?{TAG_NAME}\s?(?:>|&gt;)',
    rf'\[\s?/\s?{WORDS}\]',
    rf'◁\s?/\s?{WORDS}\s?▷',
    rf'<[|｜](?:/|end[_▁](?:of[_▁])?){WORDS}[|｜]>',
    r'<unused95>',
    rf'(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*final\b{MESSAGE}',
    r'(?-i:assistantfinal)',
    r'\.\.\.\s?done thinking\.',
    r'here is my response:',
)
# It ends where it is known to have begun; elsewhere these stand for something else.
ENDS = (r'<\|end\|>(?:\s*<\|start\|>\s*assistant\b)?', r'<channel\|>')

TAG = re.compile(
    r'(?=[<&\[◁.ah]|\A)'  # their first characters: everything else is passed over fast
    f'(?P<opening>{"|".join(OPENINGS)})|(?P<closing>{"|".join(CLOSINGS)})|(?P<end>{"|".join(ENDS)})',
    re.IGNORECASE,
)
EMPTY_THOUGHT = re.compile(rf'<{TAG_NAME}\s?/>', re.IGNORECASE)
SPECIAL_TOKEN = re.compile(r'<[|｜][^\s<>|｜]{1,40}[|｜]>')  # <|return|>, <|im_end|>
KEY = re.compile(rf'(?:my[_ -]?)?{WORDS}(?:[_ -]?(?:content|steps?))?|analysis', re.IGNORECASE)


def is_thought(key: str) -> bool:
    """Tell whether what stands under a key of a JSON answer is a thought."""
    return KEY.fullmatch(key.strip()) is not None


def without_thoughts(text: str) -> tuple[str, bool]:
    """Cut the thoughts off an answer: what is up to the last closing tag of one.

    Args:
        text: untrusted, of any length.

    Returns:
        The answer, empty where there is none yet, and whether the text ends within a thought.
    """
    answers: list[str] = []  # what stands between thoughts
    start, thinking = 0, False
    text = EMPTY_THOUGHT.sub('\n', text[:MAX_LENGTH])
    for tag in TAG.finditer(text):
        if tag['opening'] is not None:
            answers += () if thinking else (text[start : tag.start()],)
            thinking = True
        elif thinking:
            start, thinking = tag.end(), False
        elif tag['closing'] is not None:  # all of it so far was a thought
            answers.clear()
            start = tag.end()
    answers += () if thinking else (text[start:],)
    worded = (SPECIAL_TOKEN.sub('\n', answer).strip() for answer in reversed(answers))
    return next(filter(None, worded), ''), thinking
