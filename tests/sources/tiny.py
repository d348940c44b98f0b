"""What other tools write of a small model, with their names of files and tensors; the tools need not be installed."""

import json

import torch
from safetensors.torch import save_file


def tiny(seed=0):
    """The state dict of an own model: vocabulary 16, width 8, 2 heads, 2 layers, head tied to the embedding."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    state = {"tok.weight": normal(16, 8), "pos.weight": normal(12, 8)}
    for layer in range(2):
        inside = f"blocks.{layer}."
        for norm in ("ln1", "ln2"):
            state |= {f"{inside}{norm}.weight": normal(8), f"{inside}{norm}.bias": normal(8)}
        state[f"{inside}attn.mask"] = torch.ones(12, 12, dtype=torch.bool).tril()
        for name, (rows, columns) in {
            "attn.qkv": (24, 8),
            "attn.proj": (8, 8),
            "mlp.0": (32, 8),
            "mlp.2": (8, 32),
        }.items():
            state |= {f"{inside}{name}.weight": normal(rows, columns), f"{inside}{name}.bias": normal(rows)}
    state |= {"lnf.weight": normal(8), "lnf.bias": normal(8)}
    return state | {"head.weight": state["tok.weight"]}


def untied(state):
    """As ``save_file`` takes it: every tensor has memory of its own."""
    return {name: tensor.clone() for name, tensor in state.items()}


def llama():
    """The state dict of a small Llama with grouped keys and values."""
    state = {"model.embed_tokens.weight": torch.randn(16, 8)}
    for layer in range(2):
        inside = f"model.layers.{layer}."
        shapes = {"self_attn.q_proj": (8, 8), "self_attn.k_proj": (4, 8), "self_attn.v_proj": (4, 8)}
        shapes |= {
            "self_attn.o_proj": (8, 8),
            "mlp.gate_proj": (16, 8),
            "mlp.up_proj": (16, 8),
            "mlp.down_proj": (8, 16),
        }
        state |= {f"{inside}{name}.weight": torch.randn(*shape) for name, shape in shapes.items()}
        norms = ("input_layernorm", "post_attention_layernorm")
        state |= {f"{inside}{name}.weight": torch.randn(8) for name in norms}
    return state | {"model.norm.weight": torch.randn(8), "lm_head.weight": torch.randn(16, 8)}


def write_shards(folder, state, count=4, write=save_file, whole="model.safetensors"):
    """Write shards and their index, one tensor after the other over the files, as no layer lies in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    stem, ending = whole.split(".")
    files = {f"{stem}-{k + 1:05d}-of-{count:05d}.{ending}": list(state)[k::count] for k in range(count)}
    for name, names in files.items():
        write({key: state[key] for key in names}, folder / name)
    named = {key: name for name, names in files.items() for key in names}
    (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": named}))
    return folder


def trainer_folder(folder, step, state, config=True):
    """A checkpoint of transformers' Trainer; what holds no weights holds what is never read."""
    folder.mkdir(parents=True)
    if config:
        (folder / "config.json").write_text('{"model_type": "gpt2"}')
        (folder / "generation_config.json").write_text("{}")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        (folder / name).write_bytes(b"no tensors")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "epoch": 1.5}))
    return folder


def accelerate_folder(folder, state, pickled=False):
    """What ``save_state`` of accelerate writes."""
    folder.mkdir(parents=True)
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
        (folder / name).write_bytes(b"no tensors")
    return folder


def lightning(step, state, **others):
    """What Lightning keeps in a checkpoint of a module whose attribute ``model`` is the model."""
    moments = {number: {"exp_avg": torch.zeros(8), "step": torch.tensor(5.0)} for number in range(2)}
    return {
        "epoch": 0,
        "global_step": step,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {},
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-3, "params": [0, 1]}]}],
        "lr_schedulers": [],
        **others,
    }


def nanogpt(step, state):
    """What nanoGPT keeps; its names are those of a compiled model."""
    return {
        "model": {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(8)}}, "param_groups": []},
        "model_args": {"n_layer": 2},
        "iter_num": step,
        "best_val_loss": torch.tensor(4.5),
        "config": {"compile": True, "dataset": "shakespeare_char"},
    }


def nanogpt_state():
    """Weights of nanoGPT's GPT, ``bias=False``: head tied, query, key and value in fused rows."""
    state = {"transformer.wte.weight": torch.randn(86, 8), "transformer.wpe.weight": torch.randn(12, 8)}
    for layer in range(2):
        inside = f"transformer.h.{layer}."
        state |= {f"{inside}ln_1.weight": torch.ones(8), f"{inside}attn.c_attn.weight": torch.randn(24, 8)}
        state |= {f"{inside}attn.c_proj.weight": torch.randn(8, 8), f"{inside}ln_2.weight": torch.ones(8)}
        state |= {f"{inside}mlp.c_fc.weight": torch.randn(32, 8), f"{inside}mlp.c_proj.weight": torch.randn(8, 32)}
    state["transformer.ln_f.weight"] = torch.ones(8)
    return state | {"lm_head.weight": state["transformer.wte.weight"]}


def transformer_lens():
    """Weights of TransformerLens's HookedTransformer: every matrix by heads, inputs first."""
    state = {"embed.W_E": torch.randn(16, 8), "pos_embed.W_pos": torch.randn(12, 8)}
    for layer in range(2):
        inside = f"blocks.{layer}."
        state |= {f"{inside}ln1.w": torch.ones(8), f"{inside}ln1.b": torch.zeros(8)}
        state |= {f"{inside}attn.W_{each}": torch.randn(2, 8, 4) for each in "QKV"}
        state |= {f"{inside}attn.b_{each}": torch.randn(2, 4) for each in "QKV"}
        state |= {f"{inside}attn.W_O": torch.randn(2, 4, 8), f"{inside}attn.b_O": torch.randn(8)}
        state[f"{inside}attn.mask"] = torch.ones(12, 12, dtype=torch.bool).tril()
        state[f"{inside}attn.IGNORE"] = torch.tensor(float("-inf"))
        state |= {f"{inside}mlp.W_in": torch.randn(8, 32), f"{inside}mlp.W_out": torch.randn(32, 8)}
    return state | {"ln_final.w": torch.ones(8), "unembed.W_U": torch.randn(8, 16), "unembed.b_U": torch.zeros(16)}
