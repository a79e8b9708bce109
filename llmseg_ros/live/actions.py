"""What pages ask for over the socket, checked, and done to a session."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmseg_ros.classes import clean_names, name_key
from llmseg_ros.live.session import LiveError, Session
from llmseg_ros.settings import ConfigError

MOST_SENTENCES = 8  # of refusals in one answer, and of notes in a state
Request = Mapping[str, Any]


def parse_request(text: str) -> Request:
    """Return a request as its fields.

    Raises:
        LiveError: it is none.
    """
    try:
        request = json.loads(text, parse_int=float)  # an int can be too large for a float
    except (ValueError, RecursionError) as error:
        raise LiveError('what came over the socket is no JSON') from error
    if not isinstance(request, dict) or not isinstance(request.get('do'), str):
        raise LiveError('what came over the socket does not say what to do')
    return request


def serve_request(session: Session, request: Request) -> str:
    """Do what a page asks for; return what to tell it, empty where all is well."""
    action = ACTIONS.get(request['do'])
    try:
        if action is None:
            raise LiveError(f'there is no {request["do"][:40]!a} to do')
        return '; '.join(few_sentences(action(session, request)))
    except (LiveError, ConfigError) as error:
        return str(error)
    except Exception as error:  # whatever the encoder raises is told to whoever asked
        return f'{type(error).__name__}: {error}'


def field(request: Request, name: str, kind: type | tuple[type, ...]) -> Any:
    """Return a field of a request.

    Raises:
        LiveError: it is missing or of another type.
    """
    value = request.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise LiveError(f'{request["do"]!a} lacks {name}, or it is of the wrong kind')
    return value


def split_names(text: str) -> list[str]:
    """Return the names of a text with a comma or a line between them."""
    return [name for name in re.split(r'[,;\n\r]', text) if name.strip()]


def add_classes(session: Session, request: Request) -> Sequence[str]:
    names, messages = clean_names(split_names(field(request, 'names', str)))
    there = [item['name'] for item in session.describe()['classes']]
    keys = {name_key(name) for name in there}
    new = [name for name in names if name_key(name) not in keys]
    known = [f'{name!a} is in the list already' for name in names if name_key(name) in keys]
    if not new:
        return [*messages, *known] or ['type the name of a class first']
    return [*messages, *known, *session.set_classes([*there, *new])]


def drop_class(session: Session, request: Request) -> Sequence[str]:
    key = name_key(field(request, 'name', str))
    there = [item['name'] for item in session.describe()['classes']]
    session.set_classes([name for name in there if name_key(name) != key])
    return ()


def set_subclasses(session: Session, request: Request) -> Sequence[str]:
    name, names = field(request, 'name', str), field(request, 'names', list)
    if not all(isinstance(subclass, str) for subclass in names):
        raise LiveError('subclasses are names')
    return session.set_subclasses(name, names)


def set_threshold(session: Session, request: Request) -> Sequence[str]:
    session.set_threshold(field(request, 'name', str), field(request, 'value', (int, float)))
    return ()


def pause(session: Session, request: Request) -> Sequence[str]:
    session.pause(field(request, 'paused', bool))
    return ()


def step(session: Session, request: Request) -> Sequence[str]:
    session.step()
    return ()


def few_sentences(messages: Sequence[str]) -> list[str]:
    """Return messages; of very many only the first, and how many more there are."""
    more = len(messages) - MOST_SENTENCES
    return [*messages[:MOST_SENTENCES], *([f'and {more} more'] if more > 0 else [])]


ACTIONS: Mapping[str, Callable[[Session, Request], Sequence[str]]] = {
    'add': add_classes,
    'drop': drop_class,
    'subclasses': set_subclasses,
    'threshold': set_threshold,
    'pause': pause,
    'step': step,
}
