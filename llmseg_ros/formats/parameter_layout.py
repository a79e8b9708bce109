"""The layout of ROS parameter files: settings below node names, in namespaces, with dots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PARAMETERS = 'ros__parameters'
ANY = ('*', '**')


def node_parameters(data: Mapping[str, Any], node: str) -> Mapping[str, Any]:
    """Return a node's settings by section; of a file in another layout all of it, as it is.

    Args:
        data: what is in the file.
        node: its name, in any namespace; a file for one node alone is taken as this one's.

    Raises:
        ValueError: the file is for other nodes, or has something else where settings belong.
    """
    found = dict(nodes_below({ANY[1]: data} if PARAMETERS in data else data))
    if not found:
        return data
    wanted = [name for name in found if name.rpartition('/')[2] in (*ANY, node)]
    if not wanted and len(found) > 1:
        raise ValueError(f'it is for {", ".join(found)}: name one of them {node} or /**')
    merged: dict[str, Any] = {}
    for name in wanted or found:
        if not isinstance(found[name], Mapping):
            raise ValueError(f'{name}: expected settings by name')
        for key, value in found[name].items():
            section, _, setting = str(key).partition('.')
            values = {setting: value} if setting else value
            if isinstance(values, Mapping) and isinstance(merged.get(section, {}), Mapping):
                values = {**merged.get(section, {}), **values}
            merged[section] = values
    return merged


def nodes_below(data: Mapping[str, Any], name: str = '') -> Iterator[tuple[str, Any]]:
    """Give every node a parameter file names, with its namespace, and its settings."""
    for key, value in data.items():
        if not isinstance(value, Mapping):
            continue
        below = f'{name}/{str(key).strip("/")}'
        if PARAMETERS in value:
            yield below, value[PARAMETERS]
        else:
            yield from nodes_below(value, below)
