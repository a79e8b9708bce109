import pytest

from llmseg_ros.classes import name_key
from llmseg_ros.subclasses.packs import PackError, curated_packs, load_pack, write_pack

# fmt: off
VOC = [
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
    'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train',
    'tvmonitor',
]
COCO_THINGS = [
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog',
    'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich',
    'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch',
    'potted plant', 'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote',
    'keyboard', 'cell phone', 'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book',
    'clock', 'vase', 'scissors', 'teddy bear', 'hair drier', 'toothbrush',
]
ROBOT = [
    'cabinetry', 'bookcase', 'coffeetable', 'pictureframe', 'wastecontainer', 'windowblind',
    'tincan', 'tap', 'heater', 'nightstand', 'doll', 'shelf', 'countertop', 'pillow', 'door',
    'window', 'lamp', 'stairs', 'shoe', 'towel',
]
# fmt: on


def find(name):
    found = [pack.find(name) for pack in curated_packs()]
    return [names for names in found if names is not None]


@pytest.mark.parametrize('name', sorted({*VOC, *COCO_THINGS, *ROBOT}))
def test_class_is_in_one_pack_with_ten_distinct_subclasses(name):
    (names,) = find(name)
    assert len(names) == 10
    assert len({name_key(sub) for sub in names}) == 10


def test_every_class_has_ten_contrasts_that_are_no_names_of_it():
    for pack in curated_packs():
        for name, names in pack.contrasts.items():
            own = {key for key, of in pack.keys.items() if of == name}
            own |= {name_key(sub) for sub in pack.classes[name]}
            assert len({name_key(one) for one in names} - own) == len(names) == 10, name
        assert pack.contrasts.keys() == pack.classes.keys()


def test_packs_hold_the_promised_classes():
    sizes = {pack.path.stem: len(pack.classes) for pack in curated_packs()}
    assert sizes == {'voc': 20, 'coco_things': 60, 'indoor': 40}
    assert len(set(COCO_THINGS)) == 80
    assert all(pack.origin for pack in curated_packs())


def test_no_name_stands_for_two_classes():
    keys = [key for pack in curated_packs() for key in pack.keys]
    assert len(set(keys)) == len(keys)


def test_no_subclass_is_another_class_or_shared():
    keys = {key for pack in curated_packs() for key in pack.keys}
    subs = [name_key(s) for pack in curated_packs() for subs in pack.classes.values() for s in subs]
    assert not keys & set(subs)
    assert len(set(subs)) == len(subs)


@pytest.mark.parametrize(
    ('alias', 'name'),
    [
        ('couch', 'sofa'),
        ('Airplane', 'aeroplane'),
        ('TV', 'tvmonitor'),
        ('potted  plant', 'pottedplant'),
        ('dining table', 'diningtable'),
        ('motorcycle', 'motorbike'),
        ('coffee table', 'coffeetable'),
        ('trash can', 'wastecontainer'),
        ('faucet', 'tap'),
    ],
)
def test_alias_finds_the_same_list(alias, name):
    assert find(alias) == find(name) != []


def write(tmp_path, text):
    path = tmp_path / 'own.yaml'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_load_pack(tmp_path):
    pack = load_pack(
        write(
            tmp_path,
            'origin: ours\nclasses:\n'
            '  Mug: {aliases: [Coffee  Cup], subclasses: [" enamel   mug", 1984, no]}\n'
            '  door: {subclasses: []}\n',
        )
    )
    assert pack.origin == 'ours'
    assert pack.find('mug') == ('enamel mug', '1984', 'no')
    assert pack.find('COFFEE cup') == pack.find('mug')
    assert pack.find('door') == ()
    assert pack.find('window') is None


def test_contrasts_are_optional_and_found_by_alias(tmp_path):
    pack = load_pack(
        write(
            tmp_path,
            'classes:\n'
            '  mug: {aliases: [cup], subclasses: [beaker], contrasts: [" coffee  pot", no]}\n'
            '  door: {subclasses: [], contrasts: []}\n'
            '  window: {subclasses: []}\n',
        )
    )
    assert pack.find_contrasts('CUP') == pack.find_contrasts('mug') == ('coffee pot', 'no')
    assert pack.find_contrasts('door') == ()
    assert pack.find_contrasts('window') is None
    assert pack.find_contrasts('gate') is None


BOMB = (
    'a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n'
    'c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n'
    'e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nclasses: {cat: {subclasses: [*e]}}\n'
)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'the file is empty, expected origin and classes'),
        ('- a\n- b', 'the file is a list, expected'),
        ('origin: x', 'classes is missing'),
        ('classes: [cat]', 'classes is a list'),
        (
            'classes: {cat: }',
            "class 'cat' is empty, expected aliases, subclasses, contrasts and origin",
        ),
        ('classes: {cat: [tabby]}', "class 'cat' is a list"),
        ('classes: {cat: {}}', "'cat', subclasses: missing, expected a list of names"),
        ('classes: {cat: {subclasses: tabby}}', "'cat', subclasses: text, expected a list"),
        ('classes: {cat: {subclasses: [{a: b}]}}', 'a mapping, expected a name'),
        ('classes: {cat: {subclasses: [], contrasts: dog}}', "'cat', contrasts: text, expected"),
        (
            f'classes: {{cat: {{subclasses: [], contrasts: [{"x, " * 101}]}}}}',
            "'cat', contrasts: 101 names, at most 100",
        ),
        ('classes: {cat: {kinds: [a]}}', "class 'cat' has 'kinds'"),
        ('classes: {cat: {subclasses: [""]}}', 'a class name is empty'),
        ('classes: {cat: {subclasses: ["a\\nb"]}}', 'control characters'),
        (f'classes: {{cat: {{subclasses: [{"x" * 65}]}}}}', '65 characters, at most 64'),
        (f'classes: {{cat: {{subclasses: [{"x, " * 101}]}}}}', '101 names, at most 100'),
        ('classes: {cat: {subclasses: []}, cat: {subclasses: []}}', "'cat' is given twice"),
        ('classes: {cat: {subclasses: []}, CAT: {subclasses: []}}', "'CAT' names two classes"),
        (
            'classes: {cat: {aliases: [pet], subclasses: []}, pet: {subclasses: []}}',
            "'pet' names two classes",
        ),
        ('classes: [unclosed', 'it is not YAML (line'),
        ('classes: !!python/object/apply:os.getcwd []', 'classes is a list'),
        ('[' * 5000, 'nested too deeply'),
        (b'\xff\xfe\x00', 'not UTF-8'),
        (b'#' * 1_000_001, 'larger than 1000000 bytes'),
        (BOMB, "the file has 'a'"),
    ],
)
def test_bad_pack_is_refused_in_one_sentence(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(PackError) as caught:
        load_pack(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)
    assert len(str(caught.value)) < 200 + len(str(path))


def test_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(PackError, match='No such file'):
        load_pack(tmp_path / 'none.yaml')


def test_written_pack_reads_back(tmp_path):
    path = tmp_path / 'out.yaml'
    write_pack(path, 'a test', {'null': ['a: b', 'no', '- c'], 'Tür': ['Haustür']})
    pack = load_pack(path)
    assert pack.classes == {'null': ('a: b', 'no', '- c'), 'Tür': ('Haustür',)}
    assert pack.origin == 'a test'


def test_origin_of_single_lists(tmp_path):
    path = tmp_path / 'own.yaml'
    write_pack(path, 'a test', {'cat': ['tabby'], 'dog': ['pug']}, {'dog': 'a friend: mine'})
    pack = load_pack(path)
    assert pack.origins == {'dog': 'a friend: mine'}
    path.write_text('classes: {dog: {origin: [x], subclasses: [pug]}}')
    with pytest.raises(PackError, match="'dog', origin is a list, expected text"):
        load_pack(path)
