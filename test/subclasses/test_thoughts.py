import time

import pytest

from llmseg_ros.subclasses.parse import parse_answer
from llmseg_ros.subclasses.thoughts import without_thoughts

THOUGHT = (
    'Okay, the user wants kinds of boat. Let me think.\n\n'
    '1. First, rowing boats, which everybody knows.\n'
    '2. Second, no ships.\n'
    '3. Third, canoe, kayak, raft.\n\n'
)
LIST = '1. Dinghy\n2. Motor boat\n3. Ferry'
NAMES = ('Dinghy', 'Motor boat', 'Ferry')
CALL = '<|start|>assistant<|channel|>'
ANSWERS = {
    'a pair of tags': f'<think>\n{THOUGHT}</think>\n\n{LIST}',
    'an empty pair': f'<think>\n\n</think>\n\n{LIST}',
    'an empty tag': f'<think/>\n{LIST}',
    'thinking': f'<thinking>{THOUGHT}</thinking>{LIST}',
    'thought': f'<thought>\n{THOUGHT}</thought>\n{LIST}',
    'reasoning': f'<reasoning>{THOUGHT}</reasoning>{LIST}',
    'reflection after the answer': f'{LIST}\n<reflection>{THOUGHT}</reflection>\n',
    'scratchpad': f'<scratchpad>{THOUGHT}</scratchpad>{LIST}',
    'capitals': f'<THINK>{THOUGHT}</Think>{LIST}',
    'attributes and blanks': f'<think effort="high" step=1>{THOUGHT}</think >{LIST}',
    'a prefix': f'<seed:think>{THOUGHT}</seed:think>{LIST}',
    'escaped': f'&lt;think&gt;{THOUGHT}&lt;/think&gt;{LIST}',
    'brackets': f'[THINK]{THOUGHT}[/THINK]{LIST}',
    'triangles': f'◁think▷{THOUGHT}◁/think▷{LIST}',
    'only a closing tag': f'{THOUGHT}</think>\n\n{LIST}',
    'only a closing tag of another kind': f'{THOUGHT}</thought>{LIST}',
    'only a closing bracket': f'{THOUGHT}[/THINK]{LIST}',
    'only a closing triangle': f'{THOUGHT}◁/think▷{LIST}',
    'nested': f'<think>{THOUGHT}<think>{THOUGHT}</think>{THOUGHT}</think>{LIST}',
    'kinds nested': f'<thinking>{THOUGHT}<reflection>no</reflection>{THOUGHT}</thinking>{LIST}',
    'a tag spoken of in a thought': f'<think>{THOUGHT} I am in <think> now.</think>{LIST}',
    'several thoughts': f'<think>{THOUGHT}</think>1. Cat\n2. Dog<think>{THOUGHT}</think>{LIST}',
    'gpt-oss': f'<|channel|>analysis<|message|>{THOUGHT}<|end|>{CALL}final<|message|>{LIST}',
    'gpt-oss to its end': f'{CALL}analysis<|message|>{THOUGHT}<|end|>{CALL}commentary<|message|>'
    f'{THOUGHT}<|end|>{CALL}final <|constrain|>text<|message|>{LIST}<|return|>',
    'gpt-oss, the final channel only': f'<|channel|>final<|message|>{LIST}<|end|>',
    'gpt-oss without its tokens': f'analysisWe need kinds. {THOUGHT}assistantfinal{LIST}',
    'gemma': f'<|channel>thought\n{THOUGHT}<channel|>{LIST}',
    'medgemma': f'<unused94>thought\n{THOUGHT}<unused95>{LIST}',
    'command': f'<|START_THINKING|>{THOUGHT}<|END_THINKING|><|START_RESPONSE|>{LIST}'
    '<|END_RESPONSE|>',
    'openthinker': f'<|begin_of_thought|>{THOUGHT}<|end_of_thought|>{LIST}',
    'granite': f'Here is my thought process:\n{THOUGHT}Here is my response:\n{LIST}',
    'ollama': f'Thinking...\n{THOUGHT}...done thinking.\n\n{LIST}',
    'a thought longer than an answer may be': f'<think>{THOUGHT * 200}</think>{LIST}',
    'none': LIST,
}
CUT_OFF = {
    'a thought': f'<think>{THOUGHT}',
    'brackets': f'[THINK]{THOUGHT}',
    'a channel': f'<|channel|>analysis<|message|>{THOUGHT}',
    'the head of a channel': '<|channel|>analysis',
    'the second thought': f'{THOUGHT}</think><think>{THOUGHT}',
    'triangles': f'◁think▷{THOUGHT}',
}


@pytest.mark.parametrize('case', ANSWERS)
def test_thoughts_are_no_answer(case):
    assert without_thoughts(ANSWERS[case]) == (LIST, False)
    assert parse_answer(ANSWERS[case], 10) == NAMES


@pytest.mark.parametrize('case', CUT_OFF)
def test_thought_that_never_ends_is_an_answer_cut_off(case):
    assert without_thoughts(CUT_OFF[case]) == ('', True)
    assert parse_answer(CUT_OFF[case], 10) == ()


def test_nothing_after_a_thought():
    assert without_thoughts(f'{THOUGHT}</think>') == ('', False)


@pytest.mark.parametrize(
    'answer',
    [
        '{"thought": "yawl or junk?", "subclasses": ["Dinghy", "Motor boat", "Ferry"]}',
        '{"reasoning": ["one", "two"], "kinds": ["Dinghy", "Motor boat", "Ferry"]}',
        '{"Chain of thought": "yawl", "subclasses": "Dinghy, Motor boat, Ferry"}',
    ],
)
def test_thought_in_json(answer):
    assert parse_answer(answer, 10) == NAMES


@pytest.mark.parametrize('name', ['thinker', 'reason', 'thinking chair', 'analysis lab', 'final'])
def test_names_that_look_like_thoughts(name):
    assert parse_answer(f'1. {name}\n2. ferry', 10) == (name, 'ferry')


@pytest.mark.parametrize('text', ['<think>', '</', '<|', '◁', '[think', '<a:', '&lt;think ', ' '])
def test_hostile_thoughts_take_no_time(text):
    started = time.process_time()
    without_thoughts(text * (1_000_000 // len(text)))
    assert time.process_time() - started < 2.0
