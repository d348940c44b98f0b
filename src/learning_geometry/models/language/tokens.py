"""What language models read: windows of a text, and prompts in a chat template, padded on the left.

Texts and prompts are read **as text**: a control token that is spelled in them, such as ``<|im_start|>``, is read as
the characters that it is, not as the control token, at which attention may rest as on a sink. Control tokens are those
that the tokenizer marks as special, those of the form ``<|...|>``, and added tokens that the chat template writes.
Other added tokens, such as runs of spaces or tags of HTML, are read as the tokenizer has them, and counted. A chat
template's own control tokens stay; a prompt that would add one is refused.

Whether a sequence begins with the **beginning-of-sequence token** is the tokenizer's rule (of a GGUF file, the file's),
or what ``prepend_bos`` says. A template that asks for the **date** is told always the same, :data:`DATE`, so that the
tokens of today are those of tomorrow.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from learning_geometry.models.language import LanguageModel

DATE = datetime(2024, 7, 26)
"""The date that chat templates are told: that which the templates of Llama 3 fall back on."""

OTHER_DATE = datetime(1999, 12, 5)
"""Differs from :data:`DATE` in year, month, day and day of the week, to see whether a template asks."""

CONTROL = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
"""How added tokens are spelled that control, though not all tokenizers mark them as special."""

PLAIN = "x"
"""A prompt that holds no control token, to see which ones a template writes."""

ASKS = "{{ strftime_now('%Y-%m-%d') }}"
"""A template that asks for the date."""

RENDERINGS = 8
"""How often a template is filled in to see whether it draws at random."""

BOS_BY_DEFAULT = {
    "llama-bpe",
    "llama3",
    "llama-v3",
    "falcon3",
    "falcon-h1",
    "pixtral",
    "midm-2.0",
    "lfm2",
    "tekken",
    "chameleon",
}
"""Values of ``tokenizer.ggml.pre`` with which llama.cpp puts a beginning-of-sequence token where the file says nothing
(``llama-vocab.cpp``)."""


class Windows(NamedTuple):
    """Windows of a text, and how it was read."""

    tokens: Int64[np.ndarray, "windows position"]
    reading: dict[str, Any]
    """What JSON can hold: ``prepend_bos``, the counts of control tokens that were read as text
    (``control_tokens_as_text``), of other added tokens that were read as such (``added_tokens``), by their spelling,
    and of unknown tokens (``unknown_tokens``)."""


class Prompts(NamedTuple):
    """Prompts of different lengths, padded on the left, so that the last position is the last token of each."""

    tokens: Int64[np.ndarray, "prompts position"]
    mask: Bool[np.ndarray, "prompts position"]
    """False where there is padding."""
    reading: dict[str, Any]
    """What JSON can hold: ``prepend_bos``, whether all prompts begin with that token; and of a chat template the hashes
    of itself (``template``) and of what it made of the prompts (``rendered``), and the ``date`` that it was told; None
    if it asks for none."""


def text_windows(
    model: LanguageModel, text: str, length: int, windows: int | None = None, prepend_bos: bool | None = None
) -> Int64[np.ndarray, "windows position"]:
    """Return the tokens of :func:`read_windows` alone; its arguments and errors."""
    return read_windows(model, text, length, windows, prepend_bos).tokens


def read_windows(
    model: LanguageModel, text: str, length: int, windows: int | None = None, prepend_bos: bool | None = None
) -> Windows:
    """Tokenize a text and cut it into consecutive windows of ``length`` tokens; what is left over is dropped.

    With a beginning-of-sequence token every window begins with it, and it is one of the ``length``; without one the
    first token of the text in a window is seen without context.

    Args:
        model: whose tokenizer is used.
        text: the text, read as text whatever it spells.
        length: tokens of a window.
        windows: keep the first of them only; None: all.
        prepend_bos: whether each window begins with the beginning-of-sequence token; None: if the tokenizer puts one.

    Raises:
        ValueError: the model has no tokenizer or none of that token, a window is longer than its context, the text too
            short, or a control token comes out of it all the same.
    """
    _check_length(model, length, "a window")
    bos = beginning(model, prepend_bos)
    own = length - (bos is not None)
    if own < 1:
        raise ValueError(f"a window: of {length} token, the beginning-of-sequence token; make it longer")
    control = control_tokens(_tokenizer(model))
    token_ids = np.array(_text_encoder(model, control)(text, "the text"), dtype=np.int64)
    there, wanted = len(token_ids) // own, 1 if windows is None else windows
    if not 1 <= wanted <= there:
        raise ValueError(
            f"text: its {len(token_ids)} tokens make {there} windows of {length}, and {wanted} are wanted; pass a "
            "longer text or use shorter windows"
        )
    kept = there if windows is None else windows
    tokens = token_ids[: kept * own].reshape(kept, own)
    if bos is not None:
        tokens = np.concatenate([np.full((kept, 1), bos, dtype=np.int64), tokens], axis=1)
    return Windows(tokens, {"prepend_bos": bos is not None} | _counts(_tokenizer(model), control, text, token_ids))


def chat_prompts(
    model: LanguageModel,
    prompts: Sequence[str],
    template: bool = True,
    prepend_bos: bool | None = None,
    places: Sequence[str] | None = None,
) -> Prompts:
    """Put each prompt into the chat template as the user's message, up to where the answer begins, and tokenize it.

    Args:
        model: whose tokenizer and template are used.
        prompts: the prompts.
        template: false: the prompts as they are, such as for a model that was not trained to chat.
        prepend_bos: whether each begins with the beginning-of-sequence token; what a template writes itself stays, and
            is not doubled. None: without a template, if the tokenizer puts one; with it, if the template does.
        places: what messages call each prompt, such as its file and line; None: its number.

    Raises:
        ValueError: there are no prompts; one is blank, longer than the context, of a single token, which would be read
            at the sink, or would add control tokens to the template; the model has no chat template, or one that
            leaves prompts out or draws at random; or as :func:`read_windows`.
    """
    if not prompts:
        raise ValueError("prompts: there are none; pass one or more")
    if template and getattr(model.tokenizer, "chat_template", None) is None:
        raise ValueError(f"{model.name}: no chat template; use a model that was trained to chat, or do without it")
    for number, prompt in enumerate(prompts):
        if not prompt.strip():
            where = f"prompts: number {number}" if places is None else places[number]
            raise ValueError(f"{where} is blank; leave it out")
    named = [
        f"{f'prompt {number}' if places is None else places[number]} ({prompt[:40]!r})"
        for number, prompt in enumerate(prompts)
    ]
    encoded, reading = (_in_template if template else _as_they_are)(model, prompts, named, prepend_bos)
    for tokens, name in zip(encoded, named, strict=True):
        _check_length(model, len(tokens), name)
        if len(tokens) < 2:
            raise ValueError(
                f"{name}: one token, so that its last is the first of the sequence, on which attention rests as on a "
                "sink; write a longer prompt, or use a chat template"
            )
    length = max(len(tokens) for tokens in encoded)
    padding = model.tokenizer.pad_token_id
    padded = np.full((len(encoded), length), 0 if padding is None else padding, dtype=np.int64)
    mask = np.zeros(padded.shape, dtype=bool)
    for row, tokens in enumerate(encoded):
        padded[row, length - len(tokens) :] = tokens
        mask[row, length - len(tokens) :] = True
    bos = model.tokenizer.bos_token_id
    begins = {"prepend_bos": bos is not None and all(tokens[0] == bos for tokens in encoded)}
    return Prompts(padded, mask, begins | reading)


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Return the spelling and number of every control token of a Hugging Face tokenizer."""
    templates = getattr(tokenizer, "chat_template", None) or ""
    written = templates.values() if isinstance(templates, Mapping) else [templates]

    def controls(token: Any) -> bool:
        spelled: str = token.content
        of_template = not spelled.isspace() and any(spelled in each for each in written)
        return bool(token.special) or CONTROL.fullmatch(spelled) is not None or of_template

    added = {token.content: int(number) for number, token in tokenizer.added_tokens_decoder.items() if controls(token)}
    return added | dict(zip(tokenizer.all_special_tokens, map(int, tokenizer.all_special_ids), strict=True))


def puts_bos(tokenizer: Any) -> bool:
    """Whether a Hugging Face tokenizer itself puts its beginning-of-sequence token before a text."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return False
    alone, begun = (tokenizer(PLAIN, add_special_tokens=each)["input_ids"] for each in (False, True))
    return len(begun) > len(alone) and begun[0] == bos and begun[1 : 1 + len(alone)] == alone


def beginning(model: LanguageModel, prepend_bos: bool | None) -> int | None:
    """Return the number of the token that sequences begin with; None: they begin with their text.

    Args:
        model: with its tokenizer.
        prepend_bos: whether they begin with the beginning-of-sequence token; None: if the tokenizer puts one.

    Raises:
        ValueError: the model has no tokenizer, or its tokenizer no such token.
    """
    tokenizer = _tokenizer(model)
    bos = tokenizer.bos_token_id
    if prepend_bos is None:
        prepend_bos = puts_bos(tokenizer)
    if prepend_bos and bos is None:
        raise ValueError(
            f"{model.name}: prepend_bos is true, and its tokenizer has no beginning-of-sequence token; set it to "
            "false, or to null to follow the tokenizer"
        )
    return int(bos) if prepend_bos else None


def begin_as_the_file_says(tokenizer: Any, contents: Mapping[str, Any]) -> None:
    """Let a tokenizer that was made of a GGUF file put the beginning-of-sequence token where the file says so.

    transformers passes ``tokenizer.ggml.add_bos_token`` over. Where the file lacks it llama.cpp's defaults hold: yes
    of sentencepiece vocabularies and of those of :data:`BOS_BY_DEFAULT`, no of the others.

    Args:
        tokenizer: of Hugging Face.
        contents: the values of the file's keys ``tokenizer.ggml.add_bos_token``, ``.model`` and ``.pre``, as far as it
            has them.
    """
    wanted = contents.get("tokenizer.ggml.add_bos_token")
    if wanted is None:
        by_default = contents.get("tokenizer.ggml.pre") in BOS_BY_DEFAULT
        wanted = contents.get("tokenizer.ggml.model") == "llama" or by_default
    if tokenizer.bos_token_id is not None and puts_bos(tokenizer) != bool(wanted):
        tokenizer.add_bos_token = bool(wanted)
        tokenizer.update_post_processor()
        if puts_bos(tokenizer) != bool(wanted):
            raise ValueError(
                f"tokenizer.ggml.add_bos_token: the file says {bool(wanted)}, and its tokenizer does not follow; use "
                "the model's safetensors"
            )


def _as_they_are(
    model: LanguageModel, prompts: Sequence[str], named: Sequence[str], prepend_bos: bool | None
) -> tuple[list[list[int]], dict[str, Any]]:
    bos = beginning(model, prepend_bos)
    encode = _text_encoder(model, control_tokens(model.tokenizer))
    begin = [] if bos is None else [bos]
    return [begin + encode(prompt, name) for prompt, name in zip(prompts, named, strict=True)], {"template": None}


def _in_template(
    model: LanguageModel, prompts: Sequence[str], named: Sequence[str], prepend_bos: bool | None
) -> tuple[list[list[int]], dict[str, Any]]:
    tokenizer = model.tokenizer
    control = set(control_tokens(tokenizer).values()) - {tokenizer.unk_token_id}
    TemplateError = import_module("jinja2").TemplateError

    def render(prompt: str, date: datetime = DATE, **options: Any) -> str:
        message = [{"role": "user", "content": prompt}]
        try:
            with _told(date):
                rendered: str = tokenizer.apply_chat_template(
                    message, add_generation_prompt=True, tokenize=False, **options
                )
        except TemplateError as error:  # as templates raise of their own, too
            raise ValueError(
                f"{model.name}: its chat template takes no user's message alone ({type(error).__name__}: {error}); set "
                "chat_template to false"
            ) from error
        return rendered

    if render(PLAIN, chat_template=ASKS) != DATE.date().isoformat():
        raise ValueError(f"{model.name}: this version of transformers takes no date; install another, such as 5.24")

    def encode(text: str) -> list[int]:
        tokens: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return tokens

    plain = render(PLAIN)
    if {render(PLAIN) for _ in range(RENDERINGS)} != {plain}:
        raise ValueError(f"{model.name}: its chat template draws at random; set chat_template to false")
    texts = [render(prompt) for prompt in prompts]
    # what the template writes itself: the tokenizer may take a word that it does not know for a control token
    written = min(([token for token in encode(text) if token in control] for text in (plain, *texts)), key=len)
    bos = beginning(model, True) if prepend_bos else None
    begin = [] if bos is None else [bos]
    encoded = []
    for prompt, text, name in zip(prompts, texts, named, strict=True):
        if prompt.strip() not in text:
            raise ValueError(f"{name}: the chat template does not hold it as it is; set chat_template to false")
        tokens = encode(text)
        if [token for token in tokens if token in control] != written:
            raise ValueError(
                f"{name}: holds what the tokenizer reads as a control token of its chat template; write it otherwise"
            )
        encoded.append(tokens if tokens[:1] == begin else begin + tokens)
    reading = {
        "template": _digest(json.dumps(tokenizer.chat_template, sort_keys=True)),
        "rendered": _digest("\0".join(texts)),
        "date": DATE.date().isoformat() if render(PLAIN, OTHER_DATE) != plain else None,
    }
    return encoded, reading


@contextmanager
def _told(date: datetime) -> Iterator[None]:
    """Let chat templates that ask transformers for the date be told this one; it takes no function for it."""

    class Told(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return date

    module: Any = import_module("transformers.utils.chat_template_utils")
    before, module.datetime = module.datetime, Told
    try:
        yield
    finally:
        module.datetime = before


def _text_encoder(model: LanguageModel, control: Mapping[str, int]) -> Callable[[str, str], list[int]]:
    """Return what tokenizes a text, which messages call by a name, as text, without any control token."""
    tokenizer = _tokenizer(model)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    plain = None if backend is None else _plain_backend(backend, control)
    unreadable = {number: spelled for spelled, number in control.items() if number != tokenizer.unk_token_id}

    def encode(text: str, name: str) -> list[int]:
        if plain is not None:
            with _special_as_text(plain):
                tokens: list[int] = plain.encode(text, add_special_tokens=False).ids
        else:
            options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
            tokens = tokenizer(text, **options)["input_ids"]
        if spelled := sorted({unreadable[token] for token in tokens if token in unreadable}):
            raise ValueError(f"{name}: {model.name} reads {spelled} in it as control tokens; write them otherwise")
        return tokens

    return encode


def _plain_backend(backend: Any, control: Mapping[str, int]) -> Any:
    """A backend that knows of all control tokens that they are special, of no others, and does not truncate.

    It reads only those added tokens as text that it knows to be special, and truncates where its file says so.
    """
    added = backend.get_added_tokens_decoder().values()
    right = all(token.special == (token.content in control) for token in added)
    if right and backend.truncation is None and backend.padding is None:
        return backend  # another would take longer to make than a text to read
    described = json.loads(backend.to_str())
    for token in described["added_tokens"]:
        token["special"] = token["content"] in control
    described |= {"truncation": None, "padding": None}
    return type(backend).from_str(json.dumps(described))


@contextmanager
def _special_as_text(backend: Any) -> Iterator[None]:
    before, backend.encode_special_tokens = backend.encode_special_tokens, True
    try:
        yield
    finally:
        backend.encode_special_tokens = before


def _counts(
    tokenizer: Any, control: Mapping[str, int], text: str, tokens: Int64[np.ndarray, " tokens"]
) -> dict[str, Any]:
    numbers, times = np.unique(tokens, return_counts=True)
    read = dict(zip(numbers.tolist(), times.tolist(), strict=True))
    spelled = {each: text.count(each) for each in control}
    others = {each.content: read.get(number, 0) for number, each in tokenizer.added_tokens_decoder.items()}
    return {
        "control_tokens_as_text": {each: count for each, count in sorted(spelled.items()) if count},
        "added_tokens": {each: count for each, count in sorted(others.items()) if count and each not in control},
        "unknown_tokens": read.get(tokenizer.unk_token_id, 0),
    }


def _tokenizer(model: LanguageModel) -> Any:
    if model.tokenizer is None:
        raise ValueError(f"{model.name}: loaded without a tokenizer; load it with one")
    return model.tokenizer


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _check_length(model: LanguageModel, length: int, what: str) -> None:
    context = model.sizes.context
    if length < 1 or (context is not None and length > context):
        raise ValueError(f"{what}: {length} tokens, and {model.name} reads 1 to {context}; shorten it")
