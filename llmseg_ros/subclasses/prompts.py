"""Prompt templates: text files with {n} and {class} in them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from llmseg_ros.files import shipped_path

MAX_TEMPLATE_BYTES = 16_384
SHIPPED = ('few-shot', 'zero-shot')


class PromptError(ValueError):
    """A prompt template can't be used; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Prompt:
    """A question to a language model.

    Attributes:
        name: of a shipped template, or the stem of the user's file.
        template: the text, with {class} and {n} where they go.
    """

    name: str
    template: str

    @property
    def key(self) -> str:
        """Tell apart any two templates, the same name with another text included."""
        return f'{self.name}-{hashlib.sha256(self.template.encode()).hexdigest()[:12]}'

    def render(self, class_name: str, n: int) -> str:
        """Put in the class name, as plain text, and the number of names to ask for."""
        return self.template.replace('{n}', str(n)).replace('{class}', class_name)


def contrast_prompt() -> Prompt:
    """Return P3, which asks for what is near a class or taken for it; the wording is ours.

    The idea is that of the contrastive concepts of Wysoczanska et al., TMLR 2025.
    """
    path = shipped_path('config/subclasses/contrasts.txt')
    return Prompt('contrasts', path.read_text(encoding='utf-8').strip())


def load_prompt(name: str) -> Prompt:
    """Return a shipped template by name, else the one in the file of that path.

    The shipped ones are P1 (zero-shot) and P2 (few-shot) of Sun et al., CVPRW 2024, section 2.1;
    the second example of P2, which the paper leaves out, is ours.

    Raises:
        PromptError: the file can't be read, or has no {class} in it.
    """
    shipped = name in SHIPPED
    path = shipped_path(f'config/subclasses/{name}.txt') if shipped else Path(name)
    try:
        with path.open('rb') as file:
            content = file.read(MAX_TEMPLATE_BYTES + 1)
        template = content.decode('utf-8').strip()
    except (OSError, ValueError) as error:
        raise PromptError(
            f'prompt {name!a} is neither {" nor ".join(SHIPPED)} nor a UTF-8 text file'
        ) from error
    if len(content) > MAX_TEMPLATE_BYTES:
        raise PromptError(f'prompt file {name!a} is larger than {MAX_TEMPLATE_BYTES} bytes')
    if '{class}' not in template:
        raise PromptError(f'prompt file {name!a} has no {{class}}, where the class name goes')
    return Prompt(name if shipped else path.stem, template)
