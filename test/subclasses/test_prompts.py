import pytest

from llmseg_ros.subclasses.prompts import PromptError, contrast_prompt, load_prompt


def test_zero_shot_is_the_papers_first_prompt():
    assert load_prompt('zero-shot').render('cat', 10) == (
        'Q: List 10 subclasses of the following: cat\n'
        'A: Here are 10 commonly seen subclasses of cat:'
    )


def test_few_shot_is_the_same_after_two_examples():
    text = load_prompt('few-shot').render('cat', 4)
    assert text.startswith('Q1: List 3 subclasses of the person:\nA1: female, male, child\nQ2: ')
    assert text.endswith('\n' + load_prompt('zero-shot').render('cat', 4))


def test_contrasts_are_asked_for_by_a_prompt_of_their_own():
    text = contrast_prompt().render('boat', 7)
    assert text.endswith('A: Here are 7 things often seen beside or mistaken for boat:')
    assert 'no kinds and no parts' in text
    assert '{' not in text
    keys = {contrast_prompt().key, load_prompt('few-shot').key, load_prompt('zero-shot').key}
    assert len(keys) == 3


def test_class_name_is_text(tmp_path):
    path = tmp_path / 'mine.txt'
    path.write_text('{n} of {class}, {other} %s\n')
    prompt = load_prompt(str(path))
    assert prompt.name == 'mine'
    assert prompt.render('{n}{0.x}%d', 3) == '3 of {n}{0.x}%d, {other} %s'


def test_same_name_with_another_text_has_another_key(tmp_path):
    keys = set()
    for text in ('{class}', '{class}?'):
        (tmp_path / 'few-shot.txt').write_text(text)
        keys.add(load_prompt(str(tmp_path / 'few-shot.txt')).key)
    assert len(keys | {load_prompt('few-shot').key}) == 3


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'neither few-shot nor zero-shot nor a UTF-8 text file'),
        (b'\xff', 'nor a UTF-8 text file'),
        (b'list {n} things', 'has no {class}'),
        (b'{class}' + b'x' * 16_384, 'larger than 16384 bytes'),
    ],
)
def test_bad_template(tmp_path, content, message):
    path = tmp_path / 'mine.txt'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PromptError) as caught:
        load_prompt(str(path))
    assert message in str(caught.value)
