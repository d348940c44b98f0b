"""Every family against hooks on its own modules, whose names are written here a second time, and against differences.

Streams are what blocks get and return; what attention and MLP add follows from them by subtraction.
"""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from learning_geometry.models.language.families import wrap
from learning_geometry.models.language.self_check import check_identities
from learning_geometry.seeding import seeded
from tests.tiny_families import CONFIGS, module_of, randomised, transformers

CLOSE = 1e-5
LAYERS = range(3)


class Route(NamedTuple):
    """Names of modules, as ``modeling_<family>.py`` of transformers has them."""

    blocks: str
    attention: str
    output: str
    queries: str
    """Modules of the attention that give queries, keys and values, split at spaces."""
    mlp_reads: str
    """Module of a block whose output the MLP reads; in layers without it what it reads is the stream in the middle."""
    down: str
    gate: str
    up: str = ""
    parallel: bool = False


LLAMA = Route(
    "model.layers",
    "self_attn",
    "o_proj",
    "q_proj k_proj v_proj",
    "post_attention_layernorm",
    "mlp.down_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
)
GPT2 = Route("transformer.h", "attn", "c_proj", "c_attn", "ln_2", "mlp.c_proj", "mlp.c_fc")
BLOOM = Route(
    "transformer.h",
    "self_attention",
    "dense",
    "query_key_value",
    "post_attention_layernorm",
    "mlp.dense_4h_to_h",
    "mlp.dense_h_to_4h",
)
NEOX = BLOOM._replace(blocks="gpt_neox.layers", attention="attention", parallel=True)
FALCON = BLOOM._replace(mlp_reads="input_layernorm", parallel=True)
COHERE = LLAMA._replace(mlp_reads="input_layernorm", parallel=True)
ROUTES = {
    "bloom": BLOOM,
    "cohere": COHERE,
    "cohere2": COHERE,
    "falcon": FALCON,
    "falcon, new": FALCON._replace(mlp_reads="ln_mlp"),
    "falcon, sequential, alibi": BLOOM,
    "gemma2": LLAMA._replace(mlp_reads="pre_feedforward_layernorm"),
    "gemma3_text": LLAMA._replace(mlp_reads="pre_feedforward_layernorm"),
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "gpt_neox": NEOX,
    "gpt_neox, sequential": NEOX._replace(parallel=False),
    "gptj": Route(
        "transformer.h", "attn", "out_proj", "q_proj k_proj v_proj", "ln_1", "mlp.fc_out", "mlp.fc_in", parallel=True
    ),
    "olmo2": LLAMA._replace(mlp_reads=""),
    "olmo3": LLAMA._replace(mlp_reads=""),
    "opt": Route(
        "model.decoder.layers", "self_attn", "out_proj", "q_proj k_proj v_proj", "final_layer_norm", "fc2", "fc1"
    ),
    "phi": Route(
        "model.layers",
        "self_attn",
        "dense",
        "q_proj k_proj v_proj",
        "input_layernorm",
        "mlp.fc2",
        "mlp.fc1",
        parallel=True,
    ),
    "phi3": LLAMA._replace(queries="qkv_proj", gate="mlp.gate_up_proj", up="mlp.gate_up_proj"),
    "stablelm, parallel, normed queries": COHERE,
}
"""Of names of configs, of their families, or Llama's."""

NORMED_AFTER = ("gemma2", "gemma3_text", "olmo2", "olmo3")
NORMED_QUERIES = {
    **dict.fromkeys(("qwen3", "qwen3_moe", "gemma3_text", "olmo2", "olmo3"), "q_norm"),
    "cohere, normed queries": "q_norm",
    "phi, normed queries": "q_layernorm",
    "stablelm, parallel, normed queries": "q_layernorm",
}
MIXTURES = ("mixtral", "qwen3_moe")
SCALES = {"gemma2": 9**-0.5, "gemma3_text": 9**-0.5, "granite": 0.4}
"""What scores are multiplied by, as their configs say, where that is not 1/√head_width."""


def of_config(table, name, family, default):
    return table.get(name, table.get(family, default))


def close(left, right, tolerance=CLOSE):
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def tokens_of(batch, length):
    return torch.from_numpy(seeded(1).integers(31, size=(batch, length)))


def normalised(vectors, model):
    return vectors / (vectors.square().mean(-1, keepdim=True) + model.norm.epsilon).sqrt()


def hooked(module, route, tokens, **options):
    """What goes into and comes out of modules of each block, and what the whole model returns."""
    seen, handles = {}, []

    def watch(layer, name, which):
        def look(_module, inputs, keywords, output):
            first = inputs[0] if inputs else keywords["hidden_states"]
            output = output[0] if isinstance(output, tuple) else output
            # some blocks change what a module returned
            seen[layer, name] = first.clone(), output.clone()

        handles.append(which.register_forward_hook(look, with_kwargs=True))

    for layer, block in enumerate(module.get_submodule(route.blocks)):
        attention = block.get_submodule(route.attention)
        watch(layer, "block", block)
        watch(layer, "attention", attention)
        watch(layer, "output", attention.get_submodule(route.output))
        watch(layer, "queries", attention.get_submodule(route.queries.split()[0]))
        if route.mlp_reads:
            watch(layer, "mlp_reads", block.get_submodule(route.mlp_reads))
        if not hasattr(getattr(block, "mlp", None), "experts"):
            watch(layer, "down", block.get_submodule(route.down))
            watch(layer, "gate", block.get_submodule(route.gate))
            if route.up:
                watch(layer, "up", block.get_submodule(route.up))
    with torch.no_grad():
        returned = module(input_ids=tokens, use_cache=False, **options)
    for handle in handles:
        handle.remove()
    return seen, returned


class Case(NamedTuple):
    name: str
    module: object
    model: object
    route: Route
    found: dict
    seen: dict


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    module, tokens = module_of(request.param), tokens_of(2, 11)
    model = wrap(module, request.param)
    route = of_config(ROUTES, request.param, model.family, LLAMA)
    seen, _ = hooked(module, route, tokens)
    return Case(request.param, module, model, route, model.activations(tokens, model.names), seen)


def test_activations_are_what_goes_through_the_modules(case):
    assert case.model.parallel == case.route.parallel
    for layer in LAYERS:
        of = {name.removeprefix(f"layers.{layer}."): value for name, value in case.found.items()}
        pre, post = case.seen[layer, "block"]
        z, projected = case.seen[layer, "output"]
        close(of["residual_pre"], pre)
        close(of["residual_post"], post)
        close(of["attention.z"], z)
        close(of["attention.projected"], projected)
        if case.route.parallel:
            attention, read = case.seen[layer, "attention"][1], case.seen[layer, "mlp_reads"][1]
            close(of["attention.output"], attention)
            close(of["residual_mid"], pre + attention)
            close(of["mlp.output"], post - pre - attention)
        else:
            if case.route.mlp_reads:
                middle, read = (each.view(pre.shape) for each in case.seen[layer, "mlp_reads"])
            else:
                middle = read = case.seen[layer, "gate"][0]
            close(of["residual_mid"], middle)
            close(of["attention.output"], middle - pre)
            close(of["mlp.output"], post - middle)
        close(of["mlp.input"], read)
        for name in ("attention.z", "attention.projected", "attention.output", "mlp.output"):
            assert of[name].std() > 0.05, name


def test_what_stands_between_is_named_and_is_not_passed_over(case):
    for layer in LAYERS:
        output, projected = (case.found[f"layers.{layer}.attention.{part}"] for part in ("output", "projected"))
        weights = case.model.layer_weights(layer)
        if case.model.family in NORMED_AFTER:
            norm = case.module.get_submodule(case.route.blocks)[layer].post_attention_layernorm
            close(output, norm(projected))
            close(output, weights.output_norm * normalised(projected, case.model))
            assert (output - projected).norm() > 0.1 * projected.norm()
            assert case.model.between.factor is None
        elif case.model.family == "granite":
            close(output, 0.22 * projected)
            assert case.model.between.factor == 0.22
        else:
            assert torch.equal(output, projected)
            assert case.model.between is None and weights.output_norm is None and weights.down_norm is None


def test_weights_by_role_give_what_the_modules_do(case):
    for layer in LAYERS:
        weights = case.model.layer_weights(layer)
        z = case.found[f"layers.{layer}.attention.z"]
        close(F.linear(z, weights.output, weights.output_bias), case.found[f"layers.{layer}.attention.projected"])
        if (layer, "down") not in case.seen:
            assert case.model.family in MIXTURES and weights.down is None and weights.gate is None
            continue
        hidden, written = case.seen[layer, "down"]
        close(F.linear(hidden, weights.down, weights.down_bias), written)
        read, gated = case.seen[layer, "gate"]
        size = len(weights.gate)
        close(F.linear(read, weights.gate, weights.gate_bias), gated[..., :size])
        up = case.seen[layer, "up"][1][..., -size:] if case.route.up else 1.0
        close(transformers.activations.ACT2FN[weights.activation](gated[..., :size]) * up, hidden)
        assert hidden.shape[-1] == size
        if weights.down_norm is not None:
            expected = weights.down_norm * normalised(written, case.model)
            close(case.found[f"layers.{layer}.mlp.output"], expected)


@pytest.fixture(scope="module")
def still(case):
    """Two sequences of two tokens, with nothing that depends on positions and no biases of queries, keys and values."""
    module = module_of(case.name, "eager")
    for layer, block in enumerate(module.get_submodule(case.route.blocks)):
        attention = block.get_submodule(case.route.attention)
        for name in case.route.queries.split():
            if getattr(attention.get_submodule(name), "bias", None) is not None:
                attention.get_submodule(name).bias.data.zero_()
        if case.model.family == "gemma2":
            attention.attn_logit_softcapping = None
        seen_queries.pop(layer, None)
        if norm := of_config(NORMED_QUERIES, case.name, case.model.family, None):
            attention.get_submodule(norm).register_forward_pre_hook(
                lambda _module, inputs, layer=layer: seen_queries.__setitem__(layer, inputs[0])
            )
    tokens = torch.tensor([[3, 17], [22, 8]])
    options = {"attention_mask": torch.ones_like(tokens), "output_attentions": True}
    if case.model.family != "bloom":
        options["position_ids"] = torch.zeros_like(tokens)
    seen, returned = hooked(module, case.route, tokens, **options)
    return wrap(module, case.name), seen, returned.attentions


seen_queries = {}


def test_queries_and_keys_give_the_scores(case, still):
    """By the log-odds of the two tokens, between two sequences: what ALiBi adds is the same in both."""
    model, seen, patterns = still
    normed = of_config(NORMED_QUERIES, case.name, case.model.family, None)
    for layer in LAYERS:
        read = seen[layer, "queries"][0]
        weights, width = model.layer_weights(layer), model.sizes.head_width
        expected = of_config(SCALES, case.name, model.family, width**-0.5)
        if "scaled by layer" in case.name:
            expected /= layer + 1
        assert weights.score_scale == pytest.approx(expected)
        if normed or "clipped" in case.name:
            with pytest.raises(ValueError, match=r"no query_key, since quer.* (normed|clipped)"):
                model.query_key(layer)
            if normed:
                query = seen_queries[layer]
                # by head and position, by position and head, or all heads at once
                if query.ndim == 4 and query.shape[1] == model.sizes.heads and query.shape[2] == 2:
                    query = query.transpose(1, 2)
                close(query.reshape(*read.shape[:2], -1), read @ weights.query.T)
            continue
        products = torch.from_numpy(model.query_key(layer))
        last, change = read[:, 1].double(), (read[:, 1] - read[:, 0]).double()
        scores = torch.einsum("bi,hij,bj->bh", last, products, change)
        odds = patterns[layer][:, :, 1].double().log()
        odds = odds[..., 1] - odds[..., 0]
        close(scores[0] - scores[1], odds[0] - odds[1])
        assert odds.std() > 0.05


def test_values_give_what_heads_mix_and_write(case, still):
    model, seen, patterns = still
    for layer in LAYERS:
        read, (z, projected) = seen[layer, "queries"][0], seen[layer, "output"]
        weights = model.layer_weights(layer)
        if "clipped" in case.name:
            with pytest.raises(ValueError, match="no output_value, since queries, keys and values are clipped"):
                model.output_value(layer)
            continue
        # the first token attends to itself alone
        close(z[:, 0], read[:, 0] @ weights.value.T)
        products = torch.from_numpy(model.output_value(layer))
        mixed = torch.einsum("bhqk,bkj,hij->bqi", patterns[layer].double(), read.double(), products)
        bias = 0.0 if weights.output_bias is None else weights.output_bias
        close(mixed.float() + bias, projected)


def test_embeddings_and_logits_are_those_of_the_model(case):
    """Factors, norms and positions of embeddings come before the first layer; those of logits after ``final``."""
    tokens = tokens_of(2, 11)
    with torch.no_grad():
        embedded = case.module.get_input_embeddings()(tokens)
        logits = case.module.get_output_embeddings()(case.found["final"])
        expected = case.model.forward(tokens)
    pre, config = case.found["layers.0.residual_pre"], case.module.config
    if case.model.family == "bloom":
        embedded = case.module.transformer.word_embeddings_layernorm(embedded)
    elif case.model.family in ("gpt2", "gpt_bigcode"):
        embedded = embedded + case.module.transformer.wpe.weight[:11]
    elif case.model.family == "opt":
        embedded = embedded + case.module.model.decoder.embed_positions.weight[2:13]
    elif case.model.family == "granite":
        embedded, logits = embedded * 12.0, logits / 8.0
    elif case.model.family.startswith("gemma"):
        embedded = F.embedding(tokens, case.module.get_input_embeddings().weight) * 24**0.5
    elif case.model.family.startswith("cohere"):
        logits = logits * config.logit_scale
    if case.model.family == "gemma2":
        logits = 3.0 * torch.tanh(logits / 3.0)
    close(pre, embedded)
    close(expected, logits)


def test_gemma_3_adds_a_norm_of_what_w_o_writes():
    module = module_of("gemma3_text")
    with torch.no_grad():
        module.model.layers[1].self_attn.o_proj.weight.mul_(5.0)
    model = wrap(module, "gemma")
    tokens = tokens_of(1, 9)
    written = []
    norm = module.model.layers[1].post_attention_layernorm
    norm.register_forward_hook(lambda _module, _inputs, output: written.append(output))
    found = model.activations(tokens, model.names)
    output, z = found["layers.1.attention.output"], found["layers.1.attention.z"]
    close(output, written[0])
    projected = z @ model.layer_weights(1).output.T
    close(found["layers.1.attention.projected"], projected)
    assert (output - projected).norm() > 0.5 * output.norm()
    # replaced either way, the other follows
    with torch.no_grad():
        for name, expected in (("projected", norm(2.0 + projected)), ("output", 2.0 + output)):
            seen = {}

            def hook(each, value, name=name, seen=seen):
                value = value + 2.0 if each == f"layers.1.attention.{name}" else value
                seen[each] = value
                return value

            model.forward(tokens, hook=hook)
            close(seen["layers.1.attention.output"], expected)
            close(seen["layers.1.residual_mid"], found["layers.1.residual_pre"] + expected)


def test_a_falcon_does_not_change_what_was_seen():
    """Its blocks add what attention writes to what the MLP gave, in its place."""
    module = module_of("falcon")
    model = wrap(module, "falcon")
    kept = {}
    model.visit(tokens_of(1, 9), ["layers.0.mlp.output", "layers.0.residual_post"], kept.__setitem__)
    again = model.activations(tokens_of(1, 9), ["layers.0.mlp.output"])
    assert torch.equal(kept["layers.0.mlp.output"], again["layers.0.mlp.output"])
    check_identities(model, module)


@pytest.mark.parametrize("shared", [1, 2, 3, 6])
def test_fused_projections_of_any_groups_are_split(shared):
    sizes = {"vocab_size": 31, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 6}
    configs = {
        "phi3": transformers.Phi3Config(**sizes, num_key_value_heads=shared, intermediate_size=8, pad_token_id=None),
        "falcon": transformers.FalconConfig(**sizes, num_kv_heads=shared, new_decoder_architecture=True),
    }
    for family, config in configs.items():
        module = randomised(config, family)
        model, route = wrap(module, family), ROUTES[family]
        seen, _ = hooked(module, route._replace(mlp_reads=""), torch.tensor([[3], [22]]))
        read, z = seen[0, "queries"][0][:, 0], seen[0, "output"][0][:, 0]
        close(z, read @ model.layer_weights(0).value.T)
