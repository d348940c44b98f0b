"""What language models read: windows of a text, and prompts in a chat template, padded on the left."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from learning_geometry.models.language import LanguageModel


class Prompts(NamedTuple):
    """Prompts of different lengths, padded on the left, so that the last position is the last token of each."""

    tokens: Int64[np.ndarray, "prompts position"]
    mask: Bool[np.ndarray, "prompts position"]
    """False where there is padding."""


def text_windows(
    model: LanguageModel, text: str, length: int, windows: int | None = None
) -> Int64[np.ndarray, "windows position"]:
    """Tokenize a text and cut it into consecutive windows of ``length`` tokens; what is left over is dropped.

    No token is put before a window, so its first one is seen without context.

    Args:
        model: whose tokenizer is used.
        text: the text.
        length: tokens of a window.
        windows: keep the first of them only; None: all.

    Raises:
        ValueError: the model has no tokenizer, a window is longer than its context, or the text too short.
    """
    _check_length(model, length, "a window")
    found = _encode(model, text)
    there, wanted = len(found) // length, 1 if windows is None else windows
    if not 1 <= wanted <= there:
        raise ValueError(
            f"text: its {len(found)} tokens make {there} windows of {length}, and {wanted} are wanted; pass a longer "
            "text or use shorter windows"
        )
    kept = there if windows is None else windows
    return np.array(found[: kept * length], dtype=np.int64).reshape(kept, length)


def chat_prompts(model: LanguageModel, prompts: Sequence[str], template: bool = True) -> Prompts:
    """Put each prompt into the chat template as the user's message, up to where the answer begins, and tokenize it.

    Args:
        model: whose tokenizer and template are used.
        prompts: the prompts.
        template: False: the prompts as they are, such as for a model that was not trained to chat.

    Raises:
        ValueError: there are no prompts, one is blank or longer than the context, or the model has no chat template.
    """
    if not prompts:
        raise ValueError("prompts: there are none; pass one or more")
    if template and getattr(model.tokenizer, "chat_template", None) is None:
        raise ValueError(f"{model.name}: no chat template; use a model that was trained to chat, or do without it")
    found = []
    for number, prompt in enumerate(prompts):
        if not prompt.strip():
            raise ValueError(f"prompts: number {number} is blank; leave it out")
        text = prompt
        if template:
            message = [{"role": "user", "content": prompt}]
            text = model.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        found.append(_encode(model, text))
        _check_length(model, len(found[-1]), f"prompt {number} ({prompt[:40]!r})")
    length = max(len(tokens) for tokens in found)
    padding = model.tokenizer.pad_token_id
    padded = np.full((len(found), length), 0 if padding is None else padding, dtype=np.int64)
    mask = np.zeros(padded.shape, dtype=bool)
    for row, tokens in enumerate(found):
        padded[row, length - len(tokens) :] = tokens
        mask[row, length - len(tokens) :] = True
    return Prompts(padded, mask)


def _encode(model: LanguageModel, text: str) -> list[int]:
    if model.tokenizer is None:
        raise ValueError(f"{model.name}: loaded without a tokenizer; load it with one")
    tokens: list[int] = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return tokens


def _check_length(model: LanguageModel, length: int, what: str) -> None:
    context = model.sizes.context
    if length < 1 or (context is not None and length > context):
        raise ValueError(f"{what}: {length} tokens, and {model.name} reads 1 to {context}; shorten it")
