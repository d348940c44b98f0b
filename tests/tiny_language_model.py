"""A tiny Llama with random weights, a tokenizer of characters and a chat template, in Hugging Face's layout."""

import string
from pathlib import Path

import torch

from learning_geometry.models.language.loading import import_transformers

TEMPLATE = (
    "{% for message in messages %}<{{ message['content'] }}>{% endfor %}"
    "{% if add_generation_prompt %}answer:{% endif %}"
)
CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"


def write_tiny_language_model(folder: Path, layers=4, width=16, heads=2, context=256, seed=0):
    """Write it to ``folder``, where ``models.language.loading.load`` finds it."""
    transformers = import_transformers()
    import tokenizers

    vocabulary = {"<unk>": 0, "<pad>": 1} | {character: 2 + i for i, character in enumerate(CHARACTERS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("[\\s\\S]"), "isolated")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", chat_template=TEMPLATE
    ).save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder
