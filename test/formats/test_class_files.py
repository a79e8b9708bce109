"""Class files as people have them: read, or refused with what one is."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmseg_ros.formats.class_files import (
    WHAT_IT_IS,
    ClassFileError,
    read_class_file,
    read_classes_and_rules,
)

NAMES = ['person', 'traffic light']
TENSORFLOW = """\
# of an object detector
item {
  name: "/m/01g317"
  id: 1
  display_name: "person"
}
item {
  name: "/m/015qff"
  id: 10
  display_name: "traffic light"
}
"""
READ = {
    'lines': ('a.txt', 'person\r\n\r\n  traffic light  \r\n', [0, 1]),
    'byte order mark': ('a.names', '\ufeffperson\ntraffic light', [0, 1]),
    'comments': ('a.txt', '# of ours\nperson\n  # more\ntraffic light\n', [0, 1]),
    'commas': ('a.txt', 'person, traffic light\n', [0, 1]),
    'id and name': ('a.txt', '0 person\n1 traffic light\n', [0, 1]),
    'id from 1': ('a.txt', '1 person\n2 traffic light\n', [1, 2]),
    'ids with gaps': ('a.txt', '1: person\n10: traffic light\n', [1, 10]),
    'id, tab, name': ('a.txt', '0\tperson\n1\ttraffic light\n', [0, 1]),
    'table of ids': ('a.csv', 'id,name\n0,person\n1,traffic light\n', [0, 1]),
    'name and id': ('a.txt', 'person 0\ntraffic light 1\n', [0, 1]),
    'name, comma, id': ('a.csv', 'person,1\ntraffic light,2\n', [1, 2]),
    'WordNet': ('a.txt', 'n00007846 person\nn06874185 traffic light\n', [0, 1]),
    'CVAT': (
        'labelmap.txt',
        '# label:color_rgb:parts:actions\nperson:192,128,128::\ntraffic light:0,64,0:a,b:\n',
        [0, 1],
    ),
    'TensorFlow': ('a.pbtxt', TENSORFLOW, [1, 10]),
    'TensorFlow in lines': (
        'a.pbtxt',
        "item { id: 1 name: 'person' }\nitem {id:10, name:'traffic light',}\n",
        [1, 10],
    ),
    'Open Images': ('a.csv', '/m/01g317,person\n/m/015qff,traffic light\n', [0, 1]),
    'points': ('a.md', '* person\n* traffic light\n', [0, 1]),
    'numbers and points': ('a.txt', '1. person\n2. traffic light\n', [1, 2]),
    'Cityscapes': (
        'a.csv',
        'name,id,trainId,color\nperson,24,11,"220,20,60"\ntraffic light,27,12,"0,0,0"\n',
        [24, 27],
    ),
    'ADE20K': ('a.txt', 'Idx\tRatio\tName\n1\t0.5\tperson\n2\t0.5\ttraffic light\n', [1, 2]),
    'colours': ('a.csv', 'name,r,g,b\nperson,64,0,64\ntraffic light,192,0,128\n', [0, 1]),
    'quotes': ('a.csv', '"Class";"ID"\n"person";"0"\n"traffic light";"1"\n', [0, 1]),
    'ultralytics': ('a.yaml', 'path: x\nnc: 2\nnames:\n  0: person\n  1: traffic light\n', [0, 1]),
    'out of order': ('a.yaml', 'names: {7: traffic light, 3: person}', [3, 7]),
    'ultralytics 5': ('a.yml', "train: x\nnames: ['person', 'traffic light']\n", [0, 1]),
    'YAML list': ('a.yaml', '- person\n- traffic light\n', [0, 1]),
    'YAML map': ('a.yaml', '0: person\n1: traffic light\n', [0, 1]),
    'YAML, names first': ('a.yaml', 'traffic light: 1\nperson: 0\n', [0, 1]),
    'YAML in text': ('a.txt', '# ours\nnames:\n- person\n- traffic light\n', [0, 1]),
    'list in text': ('a.txt', "['person', 'traffic light']", [0, 1]),
    'parameter file': (
        'a.yaml',
        '/**:\n  ros__parameters:\n    classes: [person, traffic light]\n    gate: {name: none}\n',
        [0, 1],
    ),
    'JSON list': ('a.json', '["person", "traffic light"]', [0, 1]),
    'JSON map': ('a.json', '{"1": "traffic light", "0": "person"}', [0, 1]),
    'Hugging Face': ('a.json', '{"id2label": {"0": "person", "1": "traffic light"}}', [0, 1]),
    'the other way round': (
        'a.json',
        '{"model_type": "x", "label2id": {"traffic light": 1, "person": 0}}',
        [0, 1],
    ),
    'entries by id': (
        'a.json',
        '{"0": {"name": "person"}, "1": {"name": "traffic light"}}',
        [0, 1],
    ),
    'COCO': (
        'a.json',
        '{"images": [], "categories": [{"id": 10, "name": "traffic light"},'
        ' {"id": 1, "name": "person"}]}',
        [1, 10],
    ),
}
REFUSED = {
    'table': ('a.txt', '1\t0.5\twall\n2\t0.5\tfloor\n', 'control characters'),
    'comma table': ('a.csv', '1,0.5,wall\n2,0.5,floor\n', 'not known'),
    'short row': ('a.csv', 'id,name\n1,wall\n2\n', 'a row without a name'),
    'no class': ('a.csv', 'name,id\nroad,7\nlicense plate,-1\n', 'id is no number from 0 on'),
    'binary': ('a.txt', 'person\0\0\x01\n', 'control characters'),
    'one bad line': ('a.txt', 'person\nbicy\x1b[31mcle\n', 'control characters'),
    'colours': ('a.txt', '64 128 64 Animal\n192 0 128 Archway\n', 'not known'),
    'names and colours': ('a.txt', 'Animal 64 128 64\nArchway 192 0 128\n', 'not known'),
    'counts': ('a.txt', '12 person\n3 bicycle\n', 'numbers that are no ids'),
    'HTML': ('a.txt', '<!DOCTYPE html>\n<html>', 'not known'),
    'XML': ('a.xml', '<annotation><object/></annotation>', 'not known'),
    'Python': ('a.py', "CLASSES = ('person', 'bicycle')\n", 'not known'),
    'settings': ('a.ini', '[classes]\nperson = 0\n', ''),
    'lines of JSON': ('a.jsonl', '{"name": "person"}\n{"name": "bicycle"}\n', 'no YAML'),
    'empty': ('a.txt', ' \n\n', 'has no class names'),
    'empty list': ('a.yaml', 'names: []\n', 'has no class names'),
    'empty JSON': ('a.json', '', 'no JSON'),
    'another YAML': ('a.yaml', 'path: data\nval: images\n', 'no list of names'),
    'a number': ('a.yaml', '- person\n- 7\n', '7 where a name is expected'),
    'a switch': ('a.yaml', 'names: [yes, person]\n', 'True where a name is expected'),
    'no name': ('a.yaml', 'names: {0: person, 1: }\n', 'None where a name is expected'),
    'nested': ('a.json', '[["person"]]', 'where a name is expected'),
    'a long id': ('a.json', '{"' + '9' * 5000 + '": "person"}', 'no list of names'),
    'id twice': ('a.json', '{"0": "person", "00": "bicycle"}', 'an id twice'),
    'deep': ('a.json', '[' * 100_000, 'no JSON'),
    'broken': ('a.yaml', 'names: [person', 'no YAML'),
}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize('kind', READ)
def test_names_and_ids_are_read(tmp_path: Path, kind: str) -> None:
    name, text, ids = READ[kind]
    assert read_class_file(write(tmp_path, name, text)) == (NAMES, ids)


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-8-sig'])
def test_files_as_windows_writes_them(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / 'a.txt'
    path.write_bytes('person\r\ntraffic light\r\n'.encode(encoding))
    assert read_class_file(path).names == NAMES


@pytest.mark.parametrize('kind', REFUSED)
def test_other_files_are_refused_with_what_a_class_file_is(tmp_path: Path, kind: str) -> None:
    name, text, reason = REFUSED[kind]
    with pytest.raises(ClassFileError) as refusal:
        read_class_file(write(tmp_path, name, text))
    assert reason in str(refusal.value)
    assert str(refusal.value).endswith(WHAT_IT_IS)
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize(
    'names',
    [
        ['warm, soft sofa', 'cat'],
        ['2 liter bottle'],
        ['1.5 liter bottle'],
        ['3d printer', 'cat'],
        ['gate 1', 'gate 2'],
        ['gate 2', 'hall 7'],
        ['TV/monitor', "driver's seat", 'chair (red)', 'salt & pepper'],
        ['猫', 'кошка'],
        ['tench, Tinca tinca', 'goldfish, Carassius auratus', 'shark'],
    ],
)
def test_names_that_look_like_something_else(tmp_path: Path, names: list[str]) -> None:
    assert read_class_file(write(tmp_path, 'a.txt', '\n'.join(names))).names == names


def test_the_shipped_lists_are_class_files() -> None:
    for path in (Path(__file__).parents[1] / 'config' / 'classes').glob('*.txt'):
        assert len(read_class_file(path).names) >= 19


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('a.yaml', '- {name: cat, minimum_score: 0.3, never: [toy]}\n- sofa\n'),
        ('a.yaml', 'names:\n  0: {name: cat, minimum_score: 0.3, never: [toy]}\n  1: sofa\n'),
        ('a.json', '[{"name": "cat", "minimum_score": 0.3, "never": ["toy"]}, "sofa"]'),
    ],
)
def test_rules_are_in_the_entries_of_yaml_and_json(tmp_path: Path, name: str, text: str) -> None:
    found, rules = read_classes_and_rules(write(tmp_path, name, text))
    assert found.names == ['cat', 'sofa']
    assert rules == [('cat', {'minimum_score': 0.3, 'never': ['toy']})]


def test_other_files_have_no_rules(tmp_path: Path) -> None:
    assert read_classes_and_rules(write(tmp_path, 'a.txt', 'cat\nsofa'))[1] == []
