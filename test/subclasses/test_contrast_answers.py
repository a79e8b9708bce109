"""Contrasts from the language model: asked after the subclasses, kept apart, late, untrusted."""

import dataclasses
import json
import time

import pytest
from skimage import data

from llmseg_ros.config import BackgroundConfig, ImageNetConfig, SegmenterConfig, SubclassesConfig
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.subclasses.llm import LlmError
from llmseg_ros.subclasses.prompts import contrast_prompt
from llmseg_ros.subclasses.resolver import Resolver, Subclasses, Wish

BESIDE = ('wall', 'zub stand', 'window')


@pytest.fixture
def config(server, tmp_path):
    return SubclassesConfig(base_url=server.url, store=str(tmp_path / 'store.sqlite3'))


@pytest.fixture
def make(config):
    resolvers = []

    def build(**settings):
        resolvers.append(Resolver(dataclasses.replace(config, **settings)))
        return resolvers[-1]

    yield build
    for resolver in resolvers:
        resolver.close()


@pytest.fixture
def start(config):
    """Make a segmenter of the embedded encoder, small, that asks the server."""
    segmenters = []

    def build(contrasts=True, **settings):
        segmenters.append(
            Segmenter(
                SegmenterConfig(
                    imagenet=ImageNetConfig(model='lite0', short_sides=(64,)),
                    subclasses=dataclasses.replace(config, **settings),
                    background=BackgroundConfig(contrasts=contrasts),
                )
            )
        )
        return segmenters[-1]

    yield build
    for segmenter in segmenters:
        segmenter.close()


def test_the_question_is_p3_and_its_schema_says_contrasts(make, server):
    resolver = make(n=7)
    assert resolver.ask('zub', kind='contrasts').names == BESIDE
    (body,) = server.requests
    assert body['messages'][0]['content'] == contrast_prompt().render('zub', 7)
    schema = body['response_format']['json_schema']
    assert schema['name'] == 'contrasts'
    assert list(schema['schema']['properties']) == schema['schema']['required'] == ['contrasts']


def test_answers_of_one_class_are_kept_apart(make, server):
    resolver = make()
    assert resolver.ask('zub').names == ('red zub', 'green zub', 'blue zub')
    assert resolver.resolve('zub', 'contrasts') == Subclasses((), 'name')
    assert resolver.ask('zub', kind='contrasts').names == BESIDE
    again = make()
    assert again.resolve('ZUB').names == ('red zub', 'green zub', 'blue zub')
    assert again.resolve('ZUB', 'contrasts').names == BESIDE
    assert again.resolve('zub', 'contrasts').source == 'store'
    assert again.origin('zub', again.resolve('zub', 'contrasts'), 'contrasts').startswith(
        'language model gpt-4o-mini, prompt contrasts, 2'
    )
    assert 'prompt few-shot' in again.origin('zub', again.resolve('zub'))
    assert len(server.requests) == 2


def test_order_is_own_file_packs_store(make, tmp_path, server):
    path = tmp_path / 'own.yaml'
    path.write_text(
        'classes: {boat: {subclasses: [raft], contrasts: [quay]},'
        ' cat: {subclasses: []}, gnu: {subclasses: [gnu], contrasts: []}}'
    )
    resolver = make(file=str(path))
    assert resolver.resolve('boat', 'contrasts') == Subclasses(('quay',), 'pack')
    assert 'dog' in resolver.resolve('cat', 'contrasts').names  # of a pack: the file has no list
    assert resolver.resolve('gnu', 'contrasts') == Subclasses((), 'pack')
    assert 'wall' in resolver.resolve('couch', 'contrasts').names  # by an alias
    wishes = resolver.missing(['boat', 'gnu', 'zub', 'gub'], ('subclasses', 'contrasts'))
    assert wishes == [
        Wish('zub'), Wish('gub'), Wish('zub', 'contrasts'), Wish('gub', 'contrasts')
    ]  # fmt: skip
    assert server.requests == []


def test_names_that_no_contrast_may_be_are_those_of_all_files(make, tmp_path):
    path = tmp_path / 'own.yaml'
    path.write_text('classes: {Couch: {subclasses: [daybed]}, pet: {subclasses: [gnu, kitten]}}')
    resolver = make(file=str(path))
    assert resolver.aliases('couch') == ()
    taken = resolver.names_taken('couch', ('daybed',))
    assert taken[0] == 'couch'
    assert {'sofa', 'daybed'} <= {*taken}
    assert {'cat', 'pet'} <= {*resolver.names_taken('Kitten', ())}
    assert resolver.names_taken('zub', ('red zub',)) == ('zub', 'red zub')


@pytest.mark.parametrize(
    ('content', 'names'),
    [
        ('1. pier\n2. **quay** - where boats lie\n3. the sea', ('pier', 'quay', 'sea')),
        ('{"contrasts": ["pier", 7, null, "/etc/passwd", "pier", "\\u001b[31mred"]}', ('pier',)),
        ('<think>boats, piers</think>["pier", "x"]', ('pier',)),
        ('I am sorry, I can not do that.', ()),
        ('[' * 5000, ()),
        (json.dumps({'contrasts': [f'thing {chr(97 + i)}x' for i in range(26)]}), None),
    ],
)
def test_answers_are_not_trusted(make, server, content, names):
    server.behave = lambda request: server.answer(content)
    resolver = make()
    found = resolver.ask('boat', kind='contrasts').names
    assert len(found) == 10 if names is None else found == names


def test_a_failure_is_a_sentence(make, server):
    server.behave = lambda request: server.status(401)
    with pytest.raises(LlmError, match=r'refuses the key \(401\)'):
        make().ask('boat', kind='contrasts')


def test_a_class_is_usable_at_once_and_gets_its_contrasts_late(start, server, until):
    segmenter = start()
    update = segmenter.set_classes(['cat', 'gizmo'])
    cat, gizmo = segmenter.vocabulary.classes
    assert 'dog' in cat.contrasts  # of the pack
    assert gizmo.contrasts == ()
    assert [c.name for c in segmenter.segment(data.chelsea()).classes] == ['cat', 'gizmo']
    until(lambda: segmenter.vocabulary.classes[1].contrasts)
    later = segmenter.vocabulary
    assert later.classes[1].contrasts == ('wall', 'gizmo stand', 'window')
    assert later.version > update.version
    until(lambda: segmenter.asking.pending == 0)
    assert server.asked == server.asked_contrasts == ['gizmo']
    segmenter.set_classes(['gizmo', 'window', 'cup'])
    ids = {item.name: item.id for item in segmenter.vocabulary.classes}
    assert ids['gizmo'] == gizmo.id
    assert segmenter.vocabulary.classes[0].contrasts == ('wall', 'gizmo stand')
    segmenter.set_classes(['cat', 'gizmo'])
    assert [item.id for item in segmenter.vocabulary.classes] == [cat.id, gizmo.id]


def test_frames_do_not_wait_for_the_answers(start, server, until):
    server.behave = lambda request: time.sleep(1.0)
    segmenter = start()
    segmenter.segment(data.chelsea())
    begin = time.monotonic()
    segmenter.set_classes(['gizmo'])
    assert segmenter.segment(data.chelsea()).version == segmenter.vocabulary.version
    assert time.monotonic() - begin < 1.0
    until(lambda: segmenter.vocabulary.classes[0].contrasts)


def test_off_asks_for_none_and_switched_on_asks(start, server, until):
    segmenter = start(contrasts=False)
    announced = []
    segmenter.on_new_subclasses = lambda: announced.append(segmenter.vocabulary.version)
    segmenter.set_classes(['cat', 'gizmo'])
    until(lambda: segmenter.vocabulary.classes[1].source == 'llm')
    assert all(item.contrasts == () for item in segmenter.vocabulary.classes)
    assert segmenter.vocabulary.contrasts is None
    assert server.asked_contrasts == []
    version = segmenter.vocabulary.version
    on = dataclasses.replace(segmenter.config, background=BackgroundConfig())
    segmenter.reconfigure(on)
    assert segmenter.vocabulary.version > version
    assert 'dog' in segmenter.vocabulary.classes[0].contrasts
    assert announced[-1] >= version + 1
    until(lambda: segmenter.vocabulary.classes[1].contrasts)
    off = dataclasses.replace(on, background=BackgroundConfig('minmax'))
    segmenter.reconfigure(off)  # nothing that could use them
    assert all(item.contrasts == () for item in segmenter.vocabulary.classes)


def test_what_a_model_names_is_filtered_by_meaning_and_what_people_wrote_is_not(
    start, server, tmp_path, until
):
    answer = server.answer('["wheel", "taxi", "road", "wheels of a car"]')
    server.behave = lambda request: answer if b'mistaken' in request.data else None
    segmenter = start(packs=False)
    segmenter.set_classes(['car'])
    until(lambda: segmenter.vocabulary.classes[0].contrasts)
    assert segmenter.vocabulary.classes[0].contrasts == ('road',)
    own = tmp_path / 'own.yaml'
    own.write_text('classes: {car: {subclasses: [], contrasts: [wheel, road, cars]}}')
    segmenter = start(file=str(own))
    segmenter.set_classes(['car'])
    assert segmenter.vocabulary.classes[0].contrasts == ('wheel', 'road')
