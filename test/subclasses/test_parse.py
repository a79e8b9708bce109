import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmseg_ros.classes import clean_name
from llmseg_ros.subclasses.parse import parse_answer

ANSWERS = yaml.safe_load(
    (Path(__file__).parents[1] / 'data' / 'llm_answers.yaml').read_text(encoding='utf-8')
)


@pytest.mark.parametrize('case', ANSWERS, ids=[case['id'] for case in ANSWERS])
def test_answer(case):
    assert list(parse_answer(case['answer'], case.get('most', 10))) == case['names']


def test_corpus_is_large_and_its_cases_differ():
    assert len({case['id'] for case in ANSWERS}) == len(ANSWERS) >= 40
    assert len({case['answer'] for case in ANSWERS}) == len(ANSWERS)


HOSTILE = [
    'poodle, pug. ' * 10_000,
    'dog ' * 50_000,
    '1. poodle\n' * 20_000,
    ' ' * 1_000_000 + 'x',
    '[' * 200_000,
    '{"a":' * 100_000,
    '(' * 200_000,
    '<a ' * 100_000,
    '**' * 100_000,
    '* ' * 100_000,
    '"' * 200_000,
    "'a" * 100_000,
    '1. ' * 100_000,
    '- - - -\t' * 50_000,
    '|' * 200_000,
    '|-|\n' * 50_000,
    'Q:\n' * 50_000,
    '[a](' * 50_000,
    '<think>' * 50_000,
    '```' * 50_000,
    ':' * 200_000,
    'such as ' * 50_000,
    '\u200b' * 200_000,
    'é́' * 100_000,
]


@pytest.mark.parametrize('text', HOSTILE, ids=[repr(text[:12]) for text in HOSTILE])
def test_hostile_answer_takes_no_time(text):
    started = time.process_time()
    names = parse_answer(text, 10)
    assert time.process_time() - started < 1.0
    assert all(clean_name(name) == name for name in names)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ['1.', '- ', '"', '[', ']', '{', ',', '\n', ':', '*', 'dog', '|', 'Q:', '(']
        )
        | st.text(max_size=6),
        max_size=40,
    ).map(''.join),
    st.integers(1, 5),
)
def test_any_text_gives_clean_names_and_no_more_than_asked(text, most):
    names = parse_answer(text, most)
    assert len(names) <= most
    assert all(clean_name(name) == name for name in names)
    assert not any(set(name) & set('<>{}[]|\\$%@#\n"') for name in names)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.from_regex(r'\A[b-z]{2,8}( [b-z]{3,8})?\Z').filter(
            lambda name: parse_answer(name, 1) == (name,)
        ),
        min_size=3,
        max_size=10,
        unique=True,
    )
)
def test_forms_of_one_list_give_the_same_names(names):
    numbered = '\n'.join(f'{i}. {name}' for i, name in enumerate(names, 1))
    forms = [numbered, ', '.join(names), '\n'.join(f'- {name}' for name in names), str(names)]
    assert {parse_answer(form, 10) for form in forms} == {tuple(names)}
