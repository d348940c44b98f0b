"""Windows of a text and padded prompts, with a tokenizer of whole words."""

import datetime
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

from learning_geometry.models import TaskSizes, build
from learning_geometry.models.language.loading import import_transformers, load
from learning_geometry.models.language.tokens import (
    DATE,
    begin_as_the_file_says,
    chat_prompts,
    control_tokens,
    puts_bos,
    read_windows,
    text_windows,
)
from learning_geometry.models.language.trained import language_model
from learning_geometry.models.transformer import SETTINGS
from learning_geometry.seeding import seeded
from tests.tiny_language_model import write_tiny_language_model

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
    ours = build(defaults | {"width": 4, "positions": "learned"}, TaskSizes(8, 8, 6))
    return replace(language_model(ours, ours.initialise(seeded(0)), "ours"), tokenizer=tokenizer)


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


def test_a_prompt_that_is_read_at_the_first_position_is_refused(model):
    with pytest.raises(ValueError, match=r"a.txt, line 2 \('two'\): one token, so that its last is the first"):
        chat_prompts(model, ["one two", "two"], template=False, places=["a.txt, line 1", "a.txt, line 2"])
    assert chat_prompts(model, ["two"]).tokens.tolist() == [[1, 4, 2]]  # in a template it is not


# --- texts that spell control tokens, read with tokenizers of several kinds

TEXT = "say <|im_start|> and <|end|> or </s>, <tool> too, not <b>  twice"
ADDED = [
    AddedToken("<|im_start|>", special=True),
    AddedToken("<|end|>", special=False),  # controls by its form
    AddedToken("<tool>", special=False),  # controls because the template writes it
    AddedToken("<b>", special=False, normalized=False),  # markup, as in Gemma
    AddedToken("  ", special=False),  # a run of spaces, as in GPT-NeoX
]
WRITES = "{% for m in messages %}<|im_start|>{{ m['content'] }}<tool>  {% endfor %}"


def trained_tokenizer(kind):
    """A tokenizer of a kind, with control tokens of every kind added, and how it reads a text without these."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    corpus = [TEXT, "the quick brown fox jumps over the lazy dog"] * 3
    letters = sorted({letter for line in corpus for letter in line.replace(" ", "▁")})
    if kind == "byte_level":
        plain = Tokenizer(models.BPE())
        plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        plain.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        plain.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    elif kind == "sentencepiece":  # control tokens are in its vocabulary, as in Llama 2
        vocabulary = {piece: i for i, piece in enumerate(["<unk>", "<s>", "</s>", *letters])}
        plain = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
        plain.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        pieces = [("<unk>", 0.0), ("</s>", -1.0), *((letter, -2.0 - i / 100) for i, letter in enumerate(letters))]
        plain = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
        plain.pre_tokenizer = pre_tokenizers.Metaspace()
    without = Tokenizer.from_str(plain.to_str())
    special = {} if kind == "byte_level" else {"unk_token": "<unk>", "eos_token": "</s>"}
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, chat_template=WRITES, **special)
    found.add_tokens(ADDED)
    return found, without


def with_tokenizer(model, tokenizer):
    sizes = model.sizes._replace(context=None, vocabulary=len(tokenizer))
    return replace(model, tokenizer=tokenizer, sizes=sizes)


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_control_tokens_that_a_text_spells_are_read_as_text(model, kind):
    tokenizer, without = trained_tokenizer(kind)
    control = control_tokens(tokenizer)
    assert {"<|im_start|>", "<|end|>", "<tool>"} <= set(control) and not {"<b>", "  "} & set(control)
    as_it_is = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert len(set(as_it_is) & set(control.values())) >= 3  # what was read before
    found = read_windows(with_tokenizer(model, tokenizer), TEXT, 1)
    assert not {control[each] for each in ("<|im_start|>", "<|end|>", "<tool>")} & set(found.tokens.ravel().tolist())
    decoded = tokenizer.decode(found.tokens.ravel()).replace("▁", "").replace(" ", "")
    assert decoded == TEXT.replace(" ", "")
    assert found.reading["control_tokens_as_text"].items() >= {"<|im_start|>": 1, "<|end|>": 1, "<tool>": 1}.items()
    assert found.reading["added_tokens"] == {"  ": 1, "<b>": 1}
    # without any of them it is what the tokenizer makes of it
    ordinary = "the quick brown fox"
    windows = text_windows(with_tokenizer(model, tokenizer), ordinary, 1)
    assert windows.ravel().tolist() == tokenizer(ordinary, add_special_tokens=False)["input_ids"]
    assert windows.ravel().tolist() == without.encode(ordinary, add_special_tokens=False).ids


def test_a_control_token_that_comes_out_of_a_text_all_the_same_is_an_error(model):
    tokenizer, _ = trained_tokenizer("unigram")  # "</s>" is a piece of its vocabulary like any other
    reader = with_tokenizer(model, tokenizer)
    assert text_windows(reader, TEXT.replace("</s>", ""), 1).size
    with pytest.raises(ValueError, match=r"the text: ours reads \['</s>'\] in it as control tokens"):
        text_windows(reader, TEXT, 1)


def test_a_tokenizer_that_is_python_alone_reads_texts_as_text(model):
    tokenizer = transformers.ByT5Tokenizer()  # bytes, without a file
    tokenizer.add_tokens(["<|tool|>"])
    assert not tokenizer.is_fast
    text = "say </s> and <extra_id_0> or <|tool|>"
    assert 1 in tokenizer(text, add_special_tokens=False)["input_ids"]
    found = read_windows(with_tokenizer(model, tokenizer), text, 1)
    assert [number - 3 for number in found.tokens.ravel()] == list(text.encode())
    assert found.reading["control_tokens_as_text"] == {"</s>": 1, "<extra_id_0>": 1, "<|tool|>": 1}


def test_a_tokenizers_own_truncation_cuts_no_text(model):
    tokenizer, _ = trained_tokenizer("byte_level")
    whole = text_windows(with_tokenizer(model, tokenizer), TEXT, 1)
    tokenizer.backend_tokenizer.enable_truncation(4)
    np.testing.assert_array_equal(text_windows(with_tokenizer(model, tokenizer), TEXT, 1), whole)


def test_a_prompt_adds_no_control_token_to_its_template(model):
    tokenizer, _ = trained_tokenizer("byte_level")
    reader = with_tokenizer(model, tokenizer)
    start, tool = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<tool>"])
    tokens = chat_prompts(reader, ["the fox"]).tokens[0].tolist()
    assert (tokens[0], tokens.count(start), tokens[-2]) == (start, 1, tool)  # the template's own stay
    for spelled in ("<|im_start|>", "<|end|>", "<tool>"):
        with pytest.raises(ValueError, match=r"prompt 1 .*: holds what the tokenizer reads as a control token"):
            chat_prompts(reader, ["the fox", f"the {spelled} fox"])
        as_text = chat_prompts(reader, [f"the {spelled} fox"], template=False).tokens[0].tolist()
        assert not set(as_text) & set(control_tokens(tokenizer).values())
        assert tokenizer.decode(as_text) == f"the {spelled} fox"
    assert chat_prompts(reader, ["a <b> fox"]).tokens.size  # markup is no control token


# --- the beginning of a sequence


@pytest.fixture
def with_bos(model):
    """The tokenizer of words, with a beginning-of-sequence token that it does not put by itself."""
    backend = type(model.tokenizer.backend_tokenizer).from_str(model.tokenizer.backend_tokenizer.to_str())
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", chat_template=TEMPLATE
    )
    return with_tokenizer(model, tokenizer)


def putting(model):
    model.tokenizer.add_bos_token = True
    model.tokenizer.update_post_processor()
    return model


def test_every_window_begins_as_the_tokenizer_or_the_config_says(model, with_bos):
    text, bos = "one two three four five one", 8
    plain = [[3, 4, 5], [6, 7, 3]]
    begun = [[bos, 3, 4], [bos, 5, 6], [bos, 7, 3]]
    assert not puts_bos(with_bos.tokenizer) and not puts_bos(model.tokenizer)
    for given, expected in ((None, plain), (False, plain), (True, begun)):
        found = read_windows(with_bos, text, 3, prepend_bos=given)
        assert (found.tokens.tolist(), found.reading["prepend_bos"]) == (expected, given is True)
    assert puts_bos(putting(with_bos).tokenizer)
    for given, expected in ((None, begun), (False, plain), (True, begun)):
        found = read_windows(with_bos, text, 3, prepend_bos=given)
        assert (found.tokens.tolist(), found.reading["prepend_bos"]) == (expected, given is not False)
    with pytest.raises(ValueError, match="ours: prepend_bos is true, and its tokenizer has no beginning-of-sequence"):
        read_windows(model, text, 3, prepend_bos=True)
    with pytest.raises(ValueError, match="a window: of 1 token, the beginning-of-sequence token"):
        read_windows(with_bos, text, 1)


def test_prompts_begin_with_one_token_of_beginning_at_most(with_bos):
    def begins(template, prepend_bos):
        found = chat_prompts(with_bos, ["one two"], template, prepend_bos)
        return found.tokens[0].tolist().count(8), found.reading["prepend_bos"]

    assert [begins(False, given) for given in (None, False, True)] == [(0, False), (0, False), (1, True)]
    assert [begins(True, given) for given in (None, False, True)] == [(0, False), (0, False), (1, True)]
    putting(with_bos)
    assert [begins(False, given) for given in (None, False, True)] == [(1, True), (0, False), (1, True)]
    assert begins(True, None) == (0, False)  # a template says itself how it begins
    with_bos.tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
    assert [begins(True, given) for given in (None, False, True)] == [(1, True)] * 3
    # one token after that of the beginning is not read at the sink
    assert chat_prompts(with_bos, ["one"], template=False, prepend_bos=True).tokens.tolist() == [[8, 3]]


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({"add_bos_token": True, "model": "gpt2"}, True),
        ({"add_bos_token": False, "model": "llama"}, False),
        ({"model": "llama"}, True),
        ({"model": "gpt2", "pre": "llama-bpe"}, True),
        ({"model": "gpt2", "pre": "smollm"}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_the_tokenizer_of_a_gguf_file_begins_as_the_file_says(with_bos, contents, expected, before):
    tokenizer = (putting(with_bos) if before else with_bos).tokenizer
    begin_as_the_file_says(tokenizer, {f"tokenizer.ggml.{key}": value for key, value in contents.items()})
    assert puts_bos(tokenizer) == expected
    assert tokenizer("one")["input_ids"] == ([8, 3] if expected else [3])


def test_a_tokenizer_that_does_not_follow_the_file_is_refused(with_bos, monkeypatch):
    tokenizer = with_bos.tokenizer
    monkeypatch.setattr(type(tokenizer), "update_post_processor", lambda self: None)
    with pytest.raises(ValueError, match=r"add_bos_token: the file says True, and its tokenizer does not follow; use"):
        begin_as_the_file_says(tokenizer, {"tokenizer.ggml.add_bos_token": True})


# --- templates that ask for the date


@pytest.mark.parametrize(
    "asks",
    [
        "{{ strftime_now('%d %b %Y') }}",
        "{% if date_string is not defined %}{% if strftime_now is defined %}"
        "{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}"
        "{% endif %}{{ date_string }}",
    ],
)
def test_a_template_is_told_the_same_date_every_day(tmp_path, asks):
    tiny = load(write_tiny_language_model(tmp_path))
    tiny.tokenizer.chat_template = f"Today: {asks}|{{{{ messages[0]['content'] }}}}"
    found = chat_prompts(tiny, ["hello"])
    expected = tiny.tokenizer("Today: 26 Jul 2024|hello", add_special_tokens=False)["input_ids"]
    assert found.tokens[0].tolist() == expected and found.reading["date"] == "2024-07-26"
    assert DATE.date() != datetime.date.today()
    again = chat_prompts(tiny, ["hello"])
    assert found.reading == again.reading
    assert chat_prompts(tiny, ["hallo"]).reading["rendered"] != found.reading["rendered"]
    tiny.tokenizer.chat_template = "Today: {{ messages[0]['content'] }}"
    assert chat_prompts(tiny, ["hello"]).reading["date"] is None


def test_a_version_of_transformers_that_takes_no_date_is_named(tmp_path, monkeypatch):
    tiny = load(write_tiny_language_model(tmp_path))
    monkeypatch.setattr("learning_geometry.models.language.tokens._told", lambda date: nullcontext())
    with pytest.raises(ValueError, match="this version of transformers takes no date; install another"):
        chat_prompts(tiny, ["hello"])


def test_templates_that_draw_at_random_or_leave_the_prompt_out_are_refused(model):
    tokenizer, _ = trained_tokenizer("byte_level")
    reader = with_tokenizer(model, tokenizer)
    tokenizer.chat_template = "{{ range(1000) | list | random }} {{ messages[0]['content'] }}"
    with pytest.raises(ValueError, match="ours: its chat template draws at random; set chat_template to false"):
        chat_prompts(reader, ["the fox"])
    tokenizer.chat_template = "{{ messages[0]['content'] | upper }}"
    with pytest.raises(ValueError, match=r"prompt 0 \('the fox'\): the chat template does not hold it as it is"):
        chat_prompts(reader, ["the fox"])
    for template in ("{{ raise_exception('a system message is needed') }}", "{{ messages[1]['content'] }}", "{% for"):
        tokenizer.chat_template = template
        with pytest.raises(ValueError, match=r"ours: its chat template takes no .* \(\w+: .+\); set chat_template"):
            chat_prompts(reader, ["the fox"])


# --- padding


def test_padding_that_has_no_embedding_is_masked_and_read(tmp_path):
    tiny = load(write_tiny_language_model(tmp_path))
    vocabulary = tiny.sizes.vocabulary
    tokens = torch.tensor([[1, 1, 7, 8], [5, 6, 7, 8]])
    mask = torch.tensor([[False, False, True, True], [True] * 4])
    expected = tiny.activations(tokens, ["final"], mask)["final"]
    for padding in (vocabulary, vocabulary + 7, -1):
        padded = tokens.masked_fill(~mask, padding)
        torch.testing.assert_close(tiny.activations(padded, ["final"], mask)["final"][mask], expected[mask])
        with pytest.raises(ValueError, match=f"and the model knows 0 to {vocabulary - 1}"):
            tiny.activations(padded, ["final"])
    tiny.tokenizer.add_special_tokens({"pad_token": "<padding>"})
    assert tiny.tokenizer.pad_token_id == vocabulary
    found = chat_prompts(tiny, ["one", "longer"])
    assert found.tokens.max() == vocabulary
    assert tiny.activations(*map(torch.from_numpy, (found.tokens,)), ["final"], torch.from_numpy(found.mask))
