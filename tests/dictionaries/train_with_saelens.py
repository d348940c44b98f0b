"""What the slow test asks of SAELens, in the environment of ``tests/install_saelens.sh``.

``train VECTORS FOLDER`` trains a dictionary of each architecture on the array "vectors" of a safetensors file, for
seconds, and saves it for use below the folder. ``judge VECTORS FOLDER…`` prints the variance that each dictionary
explains, as SAELens' evaluation computes it, and how many latents are never active, as JSON. ``attach FOLDER MODEL``
adds a dictionary to a HookedSAETransformer with the weights of a Llama in Hugging Face's layout, and prints its hook
point and how far the activations there are from those of the model itself.
"""

import json
import sys
from pathlib import Path

# SAELens is imported where it is used, as the tests' environment lacks it and pytest imports every module
import safetensors.torch
import torch

LATENTS, SAMPLES, BATCH = 48, 20_000, 100


def train(path, folder):
    from sae_lens import (
        BatchTopKTrainingSAEConfig,
        JumpReLUTrainingSAEConfig,
        StandardTrainingSAEConfig,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.training.sae_trainer import SAETrainer

    vectors = safetensors.torch.load_file(path)["vectors"]
    kinds = {
        "topk": (TopKTrainingSAEConfig, {"k": 4, "normalize_activations": "expected_average_only_in"}),
        "standard": (StandardTrainingSAEConfig, {"l1_coefficient": 0.05, "normalize_activations": "layer_norm"}),
        "jumprelu": (JumpReLUTrainingSAEConfig, {"l0_coefficient": 0.01}),
        "batchtopk": (BatchTopKTrainingSAEConfig, {"k": 4.0}),
    }
    for name, (config, settings) in kinds.items():
        torch.manual_seed(0)
        metadata = SAEMetadata(model_name="tiny", hook_name="blocks.1.hook_attn_out")
        made = config(d_in=vectors.shape[1], d_sae=LATENTS, metadata=metadata, **settings)
        sae = get_sae_training_class(name)[0](made)
        asked = SAETrainerConfig(
            total_training_samples=SAMPLES,
            train_batch_size_samples=BATCH,
            lr=3e-3,
            lr_end=3e-4,
            n_batches_for_norm_estimate=10,
        )
        trained = SAETrainer(asked, sae, _batches(vectors)).fit()
        trained.save_inference_model(Path(folder) / name)


def _batches(vectors):
    generator = torch.Generator().manual_seed(0)
    while True:
        yield vectors[torch.randint(len(vectors), (BATCH,), generator=generator)]


@torch.no_grad()
def judge(path, *folders):
    from sae_lens import SAE
    from sae_lens.evals import ExplainedVarianceCalculator

    vectors, found = safetensors.torch.load_file(path)["vectors"], {}
    for folder in folders:
        sae, calculator = SAE.load_from_disk(folder), ExplainedVarianceCalculator()
        latents = []
        for batch in vectors.split(BATCH):
            latents.append(sae.encode(batch))
            calculator.add_batch(sae(batch), batch)
        active = (torch.cat(latents) != 0).sum(0)
        found[Path(folder).name] = {
            "explained_variance": calculator.compute(),
            "active_latents": float(active.sum()) / len(vectors),
        }
    print(json.dumps(found))


@torch.no_grad()
def attach(folder, place):
    import transformers
    from sae_lens import SAE, HookedSAETransformer
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights

    theirs = transformers.AutoModelForCausalLM.from_pretrained(place)
    of = theirs.config
    config = HookedTransformerConfig(
        n_layers=of.num_hidden_layers,
        d_model=of.hidden_size,
        n_heads=of.num_attention_heads,
        d_head=of.hidden_size // of.num_attention_heads,
        d_mlp=of.intermediate_size,
        d_vocab=of.vocab_size,
        n_ctx=of.max_position_embeddings,
        act_fn="silu",
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_dim=of.hidden_size // of.num_attention_heads,
        rotary_adjacent_pairs=False,
        rotary_base=10000,
        gated_mlp=True,
        final_rms=True,
        eps=of.rms_norm_eps,
        original_architecture="LlamaForCausalLM",
    )
    model = HookedSAETransformer(config)
    model.load_state_dict(convert_llama_weights(theirs, config), strict=False)
    sae = SAE.load_from_disk(folder)
    tokens = torch.arange(12)[None] % of.vocab_size
    name = sae.cfg.metadata.hook_name
    layer = int(name.split(".")[1])
    wanted = {}
    hook = theirs.model.layers[layer].self_attn.register_forward_hook(lambda _m, _i, out: wanted.update(it=out[0]))
    theirs(tokens)
    hook.remove()
    _, cache = model.run_with_cache(tokens)
    off = float((cache[name] - wanted["it"]).abs().max())
    model.add_sae(sae)
    _, with_sae = model.run_with_cache(tokens)
    shown = [key for key in with_sae if key.startswith(name)]
    print(json.dumps({"hook_name": name, "off": off, "shown": shown}))


if __name__ == "__main__":
    {"train": train, "judge": judge, "attach": attach}[sys.argv[1]](*sys.argv[2:])
