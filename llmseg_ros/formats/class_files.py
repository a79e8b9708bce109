"""Class names out of the files that people have them in."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from llmseg_ros.class_rules import FIELDS, Given

MAX_BYTES = 1_000_000
WHAT_IT_IS = 'a class file has one name a line, or is YAML or JSON with a list of names'
NAME_KEYS = ('names', 'classes', 'labels', 'categories', 'id2label', 'label2id')
NAME_OF_ENTRY = ('name', 'display_name', 'label', 'readable')

LEFT_OUT = re.compile(r'^\s*(#.*)?$\n?', re.MULTILINE)  # blank lines and comments
YAML_START = re.compile(rf'---\s|-\s+\S|[\[{{]|(.*\n)*({"|".join(NAME_KEYS)})\s*:')
TABLE_HEAD = re.compile(r'(class[_ ]?)?(id|idx|index|value)[\s:]+(class|label|(class[_ ]?)?name)')
NAME_COLUMN = re.compile(r'(class|label|display)?[_ ]?name')
OTHER_NAME_COLUMN = re.compile(r'class|label|category')
ID_COLUMN = re.compile(r'((class|label)[_ ]?)?(id|idx|index|value)')
ID_AND_NAME = re.compile(r'(\d{1,9})(?:\s*[\s,;:=]\s*|[.)]\s+)(.*\S)')
# of WordNet and Open Images
NODE_AND_NAME = re.compile(r'(?:n\d{8}|/[mgtj]/\w+)\s*[\s,;:=]\s*(.*\S)')
BULLET_AND_NAME = re.compile(r'[-*+•]\s+(.*\S)')
NAME_AND_ID = re.compile(r'(.*\S)\s*[\s,;:=]\s*(\d{1,9})')
CVAT_LINE = re.compile(r'([^:]+):\d+,\d+,\d+:[^:]*:[^:]*')  # name:colour:parts:actions
TENSORFLOW_ITEM = re.compile(r'item\s*\{(.*?)\}', re.DOTALL)
TENSORFLOW_FIELD = re.compile(r'\b(display_name|name|id)\s*:\s*(?:"(.*?)"|\'(.*?)\'|(\w+))')

CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f]')
NO_NAME = re.compile(r'[{}\[\]=<>|\\]|^["\']|^\d+[\s,]+\d+\b|^\d[\d.]*\s*,|\d+[\s,]+\d+[\s,]+\d+$')


class ClassFileError(ValueError):
    """A class file can't be used; the message says why and what one is, after the file's name."""


class ClassFile(NamedTuple):
    """What a class file says.

    Attributes:
        names: by id.
        ids: those given, else 0, 1 and so on.
    """

    names: list[str]
    ids: list[int]


def read_class_file(path: Path) -> ClassFile:
    """Read a class file.

    It has a name a line, blank lines and those that begin with `#` aside; or `id name` or
    `name id` lines; or a table whose first line says where the names are; or one line of names
    with commas; or is a label map of CVAT or TensorFlow; or YAML or JSON with a list, a map of ids
    and names, or one of these under a key such as `names`. It is text in UTF-8, or in UTF-16 with
    its mark, as Windows writes it.

    Raises:
        ClassFileError: it is something else, has no names, or is larger than 1 MB.
        OSError: it can't be read.
    """
    return read_classes_and_rules(path)[0]


def read_classes_and_rules(path: Path) -> tuple[ClassFile, Given]:
    """Read a class file, and the rules in the entries of one in YAML or JSON, not yet checked.

    Raises:
        ClassFileError: as `read_class_file`.
        OSError: it can't be read.
    """
    with path.open('rb') as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ClassFileError(f'is larger than 1 MB; {WHAT_IT_IS}')
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode('utf-16' if wide else 'utf-8-sig')
    except UnicodeDecodeError as error:
        raise ClassFileError(f'is not UTF-8 text; {WHAT_IT_IS}') from error
    found, rules = parse_class_file(text, path.suffix.lower())
    if not found.names:
        raise ClassFileError(f'is empty, it has no class names; {WHAT_IT_IS}')
    return found, rules


def parse_class_file(text: str, suffix: str) -> tuple[ClassFile, Given]:
    """Return what a text says, read as its file's suffix tells or else its content.

    Raises:
        ClassFileError: it is no class file.
    """
    for data in data_in(text, suffix):
        return from_data(data), rules_of(data)
    if items := TENSORFLOW_ITEM.findall(text):
        found = [TENSORFLOW_FIELD.findall(item) for item in items]
        return from_data([{key: ''.join(values) for key, *values in item} for item in found]), []
    lines = re.split('\r\n|\r|\n', LEFT_OUT.sub('', text))
    return from_lines([line.strip() for line in lines]), []


def data_in(text: str, suffix: str) -> list[Any]:
    """Return the one thing that a text in YAML or JSON has, nothing where it is neither.

    Raises:
        ClassFileError: it can't be read.
    """
    if suffix == '.json':
        return [parsed(json.loads, text, 'JSON')]
    if suffix in ('.yaml', '.yml') or YAML_START.match(LEFT_OUT.sub('', text)):
        return [parsed(yaml.safe_load, text, 'YAML')]
    return []


def parsed(parse: Callable[[str], Any], text: str, kind: str) -> Any:
    """Return the data in YAML or JSON.

    Raises:
        ClassFileError: it is none.
    """
    try:
        return parse(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ClassFileError(f'is no {kind} that can be read; {WHAT_IT_IS}') from error


def from_data(data: Any) -> ClassFile:
    """Return what a list says, or a map of ids and names, or one of these under a key of a map.

    Raises:
        ClassFileError: there is none, or a name is no text: YAML takes `no` and `1` for others.
    """
    data = unwrapped(data)
    if isinstance(data, list):
        ids = [as_id(entry.get('id')) if isinstance(entry, Mapping) else None for entry in data]
        given = [number for number in ids if number is not None]
        numbers = given if len(given) == len(data) else range(len(data))
        pairs = [
            (number, name_in_entry(entry)) for number, entry in zip(numbers, data, strict=True)
        ]
    elif isinstance(data, Mapping):
        pairs = [
            (number, name_in_entry(entry))
            for key, entry in data.items()
            if (number := as_id(key)) is not None
        ]
        pairs = pairs or [(n, name) for name, key in data.items() if (n := as_id(key)) is not None]
        if len(pairs) < len(data):
            raise ClassFileError(f'has no list of names; {WHAT_IT_IS}')
    else:
        raise ClassFileError(f'has no list of names; {WHAT_IT_IS}')
    return by_id(pairs)


def unwrapped(data: Any) -> Any:
    """Return what has the names, under a key of a map or not."""
    if not isinstance(data, Mapping):
        return data
    for wrapping in ('/**', 'ros__parameters'):
        data = data[wrapping] if set(data) == {wrapping} else data
    under_a_key = (data[key] for key in NAME_KEYS if isinstance(data.get(key), (list, dict)))
    return next(under_a_key, data)


def rules_of(data: Any) -> Given:
    """Return the rules of the entries, of a list or a map, that have any."""
    data = unwrapped(data)
    entries = data.values() if isinstance(data, Mapping) else data
    return [
        (str(name_in_entry(entry)), rule)
        for entry in entries
        if isinstance(entry, Mapping) and (rule := {k: entry[k] for k in FIELDS if k in entry})
    ]


def by_id(pairs: Iterable[tuple[int, Any]]) -> ClassFile:
    """Return names in the order of their ids.

    Raises:
        ClassFileError: a name is no text, or an id is there twice.
    """
    ordered = sorted(pairs, key=lambda pair: pair[0])
    ids = [number for number, _ in ordered]
    for _, name in ordered:
        if not isinstance(name, str):
            raise ClassFileError(f'has {name!r:.40} where a name is expected; {WHAT_IT_IS}')
    if len(set(ids)) < len(ids):
        raise ClassFileError(f'has an id twice; {WHAT_IT_IS}')
    return ClassFile([name for _, name in ordered], ids)


def as_id(value: Any) -> int | None:
    """Return a whole number, or the text of one, as YAML and JSON have it; else None."""
    if isinstance(value, str) and re.fullmatch(r'\d{1,9}', value):
        return int(value)
    return value if type(value) is int and value >= 0 else None


def name_in_entry(entry: Any) -> Any:
    """Return the name in an entry of a list, which may be a map with one."""
    if isinstance(entry, Mapping):
        return next((entry[key] for key in reversed(NAME_OF_ENTRY) if key in entry), entry)
    return entry


def from_lines(lines: Sequence[str]) -> ClassFile:
    """Return what lines say: names, or names that all have an id or a colour beside them.

    Raises:
        ClassFileError: one has control characters, tabs beside ids aside, or what no name has.
    """
    lines = [line for line in lines if line]
    found = from_table(lines)
    if found is None:
        if lines and TABLE_HEAD.fullmatch(lines[0].lower()):
            lines = lines[1:]
        found = without_ids(lines)
    names = found.names
    if any(map(CONTROL.search, names)):
        raise ClassFileError(f'has control characters, it is a table or no text; {WHAT_IT_IS}')
    commas = {name.count(',') for name in names}
    if any(map(NO_NAME.search, names)) or (len(names) > 1 and len(commas) == 1 and max(commas) > 1):
        raise ClassFileError(f'is of a format that is not known; {WHAT_IT_IS}')
    if len(lines) == 1 and names == list(lines):
        names = [name.strip() for name in names[0].split(',') if name.strip()]
        return ClassFile(names, list(range(len(names))))
    return found


def from_table(lines: Sequence[str]) -> ClassFile | None:
    """Return the names, and ids where it has them, of a table; None where it is none.

    Its first line names its columns; these are apart by tabs, commas or semicolons.

    Raises:
        ClassFileError: a row has fewer columns, or an id that is no number from 0 on.
    """
    separator = next((mark for mark in '\t,;' if len(lines) > 1 and mark in lines[0]), '')
    if not separator:
        return None
    try:
        head, *rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    except csv.Error:
        return None
    columns = [column.strip().lower() for column in head]
    column = column_named(NAME_COLUMN, columns)
    column = column_named(OTHER_NAME_COLUMN, columns) if column is None else column
    if column is None:
        return None
    if any(len(row) <= column for row in rows):
        raise ClassFileError(f'has a row without a name; {WHAT_IT_IS}')
    id_column = column_named(ID_COLUMN, columns)
    if id_column is None:
        return ClassFile([row[column] for row in rows], list(range(len(rows))))
    pairs = []
    for row in rows:
        number = as_id(row[id_column].strip()) if id_column < len(row) else None
        if number is None:
            raise ClassFileError(f'has a row whose id is no number from 0 on; {WHAT_IT_IS}')
        pairs.append((number, row[column]))
    return by_id(pairs)


def column_named(pattern: re.Pattern[str], columns: Sequence[str]) -> int | None:
    """Return where the first column is whose name a pattern matches."""
    return next((i for i, column in enumerate(columns) if pattern.fullmatch(column)), None)


def without_ids(lines: Sequence[str]) -> ClassFile:
    """Return the names of lines that all have an id or a colour; else the lines.

    Ids before names rise from line to line, and are 0 or 1 where there is one line: `2 liter
    bottle` is a name. Ids after names begin with 0 or 1 and rise by 1.

    Raises:
        ClassFileError: all lines begin with numbers that are no such ids.
    """
    in_order = list(range(len(lines)))
    for pattern in (CVAT_LINE, NODE_AND_NAME, BULLET_AND_NAME):
        if found := all_matching(pattern, lines):
            return ClassFile([line[1] for line in found], in_order)
    if found := all_matching(ID_AND_NAME, lines):
        ids = [int(line[1]) for line in found]
        if ids == sorted(set(ids)) and (len(ids) > 1 or ids[0] in (0, 1)):
            return ClassFile([line[2] for line in found], ids)
        if len(ids) > 1:
            raise ClassFileError(f'begins its lines with numbers that are no ids; {WHAT_IT_IS}')
    if found := all_matching(NAME_AND_ID, lines):
        names, ids = [line[1] for line in found], [int(line[2]) for line in found]
        rising = ids in (in_order, [number + 1 for number in in_order])
        if rising and len(set(names)) == len(names) > 1:
            return ClassFile(names, ids)
    return ClassFile(list(lines), in_order)


def all_matching(pattern: re.Pattern[str], lines: Sequence[str]) -> list[re.Match[str]]:
    """Return the matches of a pattern with whole lines, none unless all lines match."""
    found = [pattern.fullmatch(line) for line in lines]
    return [match for match in found if match] if all(found) else []
