"""Windows of a text and padded prompts, with a tokenizer of whole words."""

from dataclasses import replace

import numpy as np
import pytest

from learning_geometry.models import Shape, build
from learning_geometry.models.language.loading import import_transformers
from learning_geometry.models.language.tokens import chat_prompts, text_windows
from learning_geometry.models.language.trained import language_model
from learning_geometry.models.transformer import SETTINGS
from learning_geometry.streams import stream

transformers = import_transformers()

WORDS = ["<pad>", "user", "answer", "one", "two", "three", "four", "five"]
TEMPLATE = "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}{{ 'answer' }}"


@pytest.fixture(scope="module")
def model():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    defaults = {key: value["default"] for key, value in SETTINGS.items()} | {"name": "transformer"}
    ours = build(defaults | {"width": 4, "positions": "learned"}, Shape(8, 8, 6))
    return replace(language_model(ours, ours.initialise(stream(0)), "ours"), tokenizer=tokenizer)


def test_windows_are_the_texts_tokens_in_order(model):
    text = "one two three four five one two"
    windows = text_windows(model, text, 3)
    assert windows.tolist() == [[3, 4, 5], [6, 7, 3]] and windows.dtype == np.int64
    assert text_windows(model, text, 3, 1).tolist() == [[3, 4, 5]]
    with pytest.raises(ValueError, match="its 7 tokens make 2 windows of 3, and 3 are wanted"):
        text_windows(model, text, 3, 3)
    with pytest.raises(ValueError, match="and 0 are wanted"):
        text_windows(model, text, 3, 0)
    with pytest.raises(ValueError, match="its 0 tokens make 0 windows of 3, and 1 are wanted"):
        text_windows(model, "", 3)
    with pytest.raises(ValueError, match="a window: 7 tokens, and ours reads 1 to 6"):
        text_windows(model, text, 7)


def test_prompts_end_at_the_last_position(model):
    prompts = chat_prompts(model, ["one", "one two three"])
    assert prompts.tokens.tolist() == [[0, 0, 1, 3, 2], [1, 3, 4, 5, 2]]
    assert prompts.mask.tolist() == [[False, False, True, True, True], [True] * 5]


def test_prompts_that_cannot_be_read_are_named(model):
    with pytest.raises(ValueError, match="prompts: there are none"):
        chat_prompts(model, [])
    with pytest.raises(ValueError, match="prompts: number 1 is blank"):
        chat_prompts(model, ["one", " \n"])
    with pytest.raises(ValueError, match=r"prompt 1 \('one two three four five'\): 7 tokens, and ours reads 1 to 6"):
        chat_prompts(model, ["one", "one two three four five"])
    with pytest.raises(ValueError, match="ours: no chat template"):
        chat_prompts(replace(model, tokenizer=None), ["one"])
    with pytest.raises(ValueError, match="ours: loaded without a tokenizer"):
        text_windows(replace(model, tokenizer=None), "one", 1)
