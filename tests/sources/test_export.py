"""What is written for another tool computes the same there, and comes back as it was."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from learning_geometry.export import export_run, main
from learning_geometry.models.language.loading import import_transformers
from learning_geometry.sources.checkpoint import ForeignTensor, SourceError
from learning_geometry.sources.export import export, unmapped, write, write_all
from learning_geometry.sources.maps import apply, bind, read_map
from learning_geometry.sources.readers import open_checkpoint
from learning_geometry.sources.targets import HUGGING_FACE, TARGETS, config, map_of
from learning_geometry.tasks import copying
from learning_geometry.training.checkpoints import write_checkpoint
from learning_geometry.training.importing import import_run

from .foreign_models import NanoGPT, hooked_forward
from .mapped import GPT2, HOOKED, LLAMA, NANOGPT, NEOX, SIZES, agree, drawn, logits, settings, tokens

transformers = import_transformers()

MODELS = {
    "gpt2": [GPT2, GPT2 | {"activation": "relu", "tied_readout": False, "mlp_width": 20, "norm_epsilon": 1e-3}],
    "gpt_neox": [
        NEOX,
        NEOX | {"parallel_residual": False, "tied_readout": True, "bias": ["mlp"], "rotary_width": 6},
        NEOX | {"heads": 1, "width": 22, "rotary_width": 14, "activation": "gelu_tanh"},
    ],
    "llama": [LLAMA, LLAMA | {"tied_readout": True, "bias": ["query_key_value", "output", "mlp"]}],
    "nanogpt": [NANOGPT, NANOGPT | {"bias": False, "norm_bias": False}],
    "transformer_lens": [
        HOOKED,
        HOOKED | {"positions": "rotary", "tied_readout": True, "rotary_width": 2, "head_width": 6},
        LLAMA,
        LLAMA | {"key_value_heads": None, "positions": "learned"},
        settings(norm="none", bias=False),
    ],
}
CASES = [(target, model) for target, models in MODELS.items() for model in models]


def arrays(model):
    return {name: value.numpy() for name, value in drawn(model).items()}


def exported(target, model):
    return export(target, arrays(model), model, SIZES.length)


@pytest.mark.parametrize(("target", "model"), CASES)
def test_what_is_written_comes_back_bit_by_bit(target, model, tmp_path):
    path = write(target, tmp_path, 5, exported(target, model))
    expected = arrays(model)
    with open_checkpoint(path) as checkpoint:
        shapes = {name: value.shape for name, value in expected.items()}
        back = dict(apply(bind(read_map(map_of(target, model)), checkpoint.tensors, shapes, model), checkpoint.read))
    assert back.keys() == expected.keys()
    assert all(back[name].tobytes() == expected[name].tobytes() for name in expected)
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


@pytest.mark.parametrize(("target", "model"), [case for case in CASES if case[0] in ("gpt2", "gpt_neox", "llama")])
@torch.no_grad()
def test_transformers_loads_it_and_gives_the_same_logits(target, model, tmp_path):
    path = write(target, tmp_path, 5, exported(target, model))
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert type(theirs).__name__ == json.loads((path / "config.json").read_text())["architectures"][0]
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    agree(theirs.double().eval()(tokens()).logits, logits(drawn(model, dtype=torch.float64), model, tokens()))


@pytest.mark.parametrize("model", MODELS["nanogpt"])
@torch.no_grad()
def test_nanogpt_loads_it_and_gives_the_same_logits(model, tmp_path):
    path = write("nanogpt", tmp_path, 5, exported("nanogpt", model))
    assert path.name == "ckpt_5.pt"
    content = torch.load(path, weights_only=True)
    arguments = content["model_args"]
    assert (content["iter_num"], arguments["block_size"], arguments["n_layer"]) == (5, 12, 2)
    theirs = NanoGPT(bias=arguments["bias"])
    theirs.load_state_dict(content["model"])
    agree(theirs.double().eval()(tokens()), logits(drawn(model, dtype=torch.float64), model, tokens()))


def test_the_state_dict_of_transformer_lens_gives_the_same_logits(tmp_path):
    path = write("transformer_lens", tmp_path, 5, exported("transformer_lens", HOOKED))
    state = torch.load(path, weights_only=True)
    assert state["blocks.1.attn.W_Q"].shape == (2, 8, 4)
    state = {name: value.double() for name, value in state.items()}
    for layer in range(2):
        state[f"blocks.{layer}.attn.mask"] = torch.ones(12, 12).tril().bool()
        state[f"blocks.{layer}.attn.IGNORE"] = torch.tensor(-torch.inf)
    agree(hooked_forward(state, tokens()), logits(drawn(HOOKED, dtype=torch.float64), HOOKED, tokens()))


@pytest.mark.parametrize(
    ("target", "changed", "message"),
    [
        ("llama", {"positions": "alibi"}, "positions is alibi, and llama has rotary alone"),
        ("llama", {"rotary_width": 2}, "rotary_width is 2, and llama turns whole heads"),
        ("llama", {"bias": ["query_key_value"]}, "bias holds one of query_key_value, output without another"),
        ("llama", {"norm_kind": "layer_norm"}, "norm_kind is layer_norm"),
        (
            "gpt2",
            {"mlp_width": 0, "bias": ["query_key_value", "output"]},
            "mlp_width is 0, and gpt2 has an MLP in every layer",
        ),
        ("gpt2", {"bias": ["query_key_value", "mlp"]}, "bias lacks output, and gpt2 has it always"),
        ("gpt2", {"bias": True}, "bias holds readout, and gpt2 has none there"),
        ("gpt2", {"key_value_heads": 1}, "key_value_heads is 1"),
        ("gpt2", {"head_width": 6}, "head_width is 6, and gpt2 has width / heads"),
        ("gpt2", {"norm": "post"}, "norm is post, and gpt2 has pre alone"),
        ("gpt2", {"causal": False}, "causal is false"),
        ("gpt_neox", {"bias": ["query_key_value", "mlp"]}, "without another"),
        ("gpt_neox", {"norm_bias": False}, "norm_bias is false"),
        ("nanogpt", {"tied_readout": False}, "tied_readout is false, and nanogpt has true alone"),
        ("nanogpt", {"norm_bias": False}, "norm_bias and bias differ"),
        ("nanogpt", {"mlp_width": 16}, "mlp_width is 16, and nanogpt has 4 · width"),
        ("nanogpt", {"activation": "relu"}, "activation is relu"),
        ("transformer_lens", {"positions": "alibi"}, "positions is alibi"),
        ("transformer_lens", {"norm": "post"}, "norm is post"),
        ("transformer_lens", {"final_norm": False}, "final_norm is false with norm pre"),
        ("transformer_lens", {"key_value_heads": 1}, "key_value_heads are fewer than heads without gated_mlp"),
    ],
)
def test_what_a_target_lacks_is_refused_by_name(target, changed, message):
    first = MODELS[target][0]
    exported(target, first)
    with pytest.raises(SourceError, match=f"{target} cannot hold this model: .*{message}"):
        exported(target, first | changed)


@pytest.mark.parametrize("target", TARGETS)
def test_every_option_that_changes_what_a_model_computes_is_written_or_refused(target):
    # with each other value of each option: refused, or the config says something else, or other tensors are written
    model = MODELS[target][0]
    first = exported(target, model)
    others = {
        "activation": "silu" if model["activation"] != "silu" else "relu",
        "causal": False,
        "final_norm": False,
        "gated_mlp": not model["gated_mlp"],
        "norm": "post",
        "norm_bias": False,
        "norm_epsilon": 0.5,
        "norm_kind": "rms_norm" if model["norm_kind"] == "layer_norm" else "layer_norm",
        "parallel_residual": not model["parallel_residual"],
        "positions": "none",
        "rotary_base": 7.0,
        "rotary_width": 4 if model["rotary_width"] is None else None,
        "tied_readout": not model["tied_readout"],
    }
    for key, value in others.items():
        changed = model | {key: value}
        if key.startswith("rotary") and model["positions"] != "rotary":
            continue
        if key == "norm_bias" and model["norm_kind"] == "rms_norm":  # which has none
            continue
        try:
            second = exported(target, changed)
        except ValueError:  # the target lacks it, or no model has it with the others
            continue
        if key == "tied_readout" and target == "transformer_lens":
            assert np.array_equal(second.state["unembed.W_U"], second.state["embed.W_E"].T)
            continue
        assert second.config != first.config or second.state.keys() != first.state.keys(), key


def test_a_bias_that_the_gated_mlp_of_transformer_lens_lacks_is_refused_unless_it_is_zero():
    model = LLAMA | {"bias": ["mlp"]}
    with pytest.raises(SourceError, match=r"layers.0.mlp.gate.bias: the target has none"):
        exported("transformer_lens", model)
    parameters = arrays(model)
    for name in parameters:
        if name.endswith(("gate.bias", "up.bias")):
            parameters[name] = np.zeros_like(parameters[name])
    assert "blocks.0.mlp.b_out" in export("transformer_lens", parameters, model, 12).state


def test_a_tensor_with_a_part_that_the_model_lacks_is_refused():
    parameters = arrays(GPT2)
    del parameters["layers.1.attention.key.bias"]
    with pytest.raises(SourceError, match=r"the model lacks part 1 of transformer.h.1.attn.c_attn.bias"):
        unmapped(read_map("gpt2"), parameters, GPT2, False)


def test_a_parameter_without_a_place_is_refused():
    with pytest.raises(SourceError, match=r"has no place for layers.0.mlp.gate.weight"):
        unmapped(read_map("gpt2"), arrays(GPT2 | {"gated_mlp": True}), GPT2, False)


def test_a_part_of_the_head_that_is_turned_survives_the_familys_rounding():
    for width in range(2, 130, 2):
        for turned in range(2, width + 1, 2):
            model = settings(width=width, heads=1, rotary_width=turned, mlp_width=8)
            assert int(width * config("gpt_neox", model, 16, 16, 12, "float32")["rotary_pct"]) == turned


def test_nothing_that_is_there_is_overwritten(tmp_path):
    for target, models in MODELS.items():
        made = exported(target, models[0])
        path = write(target, tmp_path / target, 5, made)
        before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} or path.read_bytes()
        with pytest.raises(SourceError, match="is there already"):
            write(target, tmp_path / target, 5, made)
        assert before == ({file: file.read_bytes() for file in path.rglob("*") if file.is_file()} or path.read_bytes())
    other = exported("transformer_lens", HOOKED | {"norm_epsilon": 0.5})
    with pytest.raises(SourceError, match=r"config.json: is of another model"):
        write("transformer_lens", tmp_path / "transformer_lens", 6, other)


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    made = exported("gpt2", GPT2)
    broken = made._replace(state=made.state | {"x": np.array(["text"])})
    with pytest.raises(ValueError, match="could not convert string"):
        write("gpt2", tmp_path, 5, broken)
    assert list(tmp_path.iterdir()) == []


TASK = {key: schema["default"] for key, schema in copying.SETTINGS.items()} | {"name": "copying", "length": 12}


@pytest.fixture
def run(tmp_path):
    """A run of three checkpoints, as training writes them."""
    model = {key: value for key, value in GPT2.items() if key != "head_width"}  # of a version that lacked an option
    for step in (0, 5, 10):
        write_checkpoint(tmp_path / "run/checkpoints", step, drawn(GPT2, step), {"model": model, "task": TASK})
    return tmp_path / "run"


def test_the_command_writes_the_steps_of_a_run(run, tmp_path, capsys):
    assert main([str(run), "--as", "gpt2", "--to", str(tmp_path / "out"), "--steps", "0", "10"]) == 0
    assert capsys.readouterr().out.startswith("2 checkpoints written, first ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["checkpoint-0", "checkpoint-10"]
    with open_checkpoint(tmp_path / "out/checkpoint-10") as checkpoint:
        assert np.array_equal(checkpoint.read("transformer.wte.weight"), drawn(GPT2, 10)["embedding.weight"].numpy())


def test_the_command_says_what_cannot_be_written_and_writes_nothing(run, tmp_path, capsys):
    assert main([str(run), "--as", "llama", "--to", str(tmp_path / "out")]) == 2
    assert "llama cannot hold this model: norm_kind is layer_norm" in capsys.readouterr().err
    assert main([str(run), "--as", "gpt2", "--to", str(tmp_path / "out"), "--steps", "7"]) == 2
    assert "no such checkpoint" in capsys.readouterr().err
    (tmp_path / "out/checkpoint-10").mkdir(parents=True)
    assert main([str(run), "--as", "gpt2", "--to", str(tmp_path / "out")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint-10"]


EMBEDDING = "embedding.weight"
KEY = "layers.1.attention.key.weight"
EXTRA = "layers.0.mlp.gate.weight"


def changed(parameters, lost=(), **others):
    """Parameters without some, and with others; double underscores are dots."""
    kept = {name: value for name, value in parameters.items() if name not in lost}
    return kept | {name.replace("__", "."): value for name, value in others.items()}


WRONG = [
    (changed(drawn(GPT2), [EMBEDDING]), "there is no embedding.weight, which the model has by its settings"),
    (
        changed(drawn(GPT2), [KEY, "final_norm.bias"]),
        f"there is no {KEY}, final_norm.bias, which .* a map that gives all",
    ),
    (changed(drawn(GPT2), ["layers.0.attention_norm.bias"]), "there is no layers.0.attention_norm.bias"),
    (drawn(GPT2 | {"layers": 1}), "there is no layers.1.attention_norm.weight, .* and 11 more, which"),
    (drawn(GPT2 | {"layers": 3}), "there is layers.2.attention.key.bias, .* and 11 more, which"),
    (
        drawn(GPT2 | {"gated_mlp": True}),
        f"there is layers.0.mlp.gate.bias, {EXTRA}, .*which the model has not by its settings; correct `model`",
    ),
    (drawn(GPT2 | {"tied_readout": False}), "there is readout.weight, which the model has not"),
    (changed(drawn(GPT2), final_norm__weight=torch.ones(7)), r"final_norm.weight is \(7,\) and not \(8,\)"),
    (changed(drawn(GPT2), positions__weight=torch.ones(12, 9)), r"positions.weight is \(12, 9\) and not \(12, 8\)"),
    (changed(drawn(GPT2), embedding__weight=torch.ones(16)), r"embedding.weight is \(16,\) and no matrix"),
    (changed(drawn(GPT2), positions__weight=torch.ones(())), r"positions.weight is \(\) and no matrix"),
    (drawn(GPT2 | {"mlp_width": 20}), r"layers.0.mlp.up.weight is \(20, 8\) and not \(32, 8\)"),
]


@pytest.mark.parametrize(("parameters", "message"), WRONG)
def test_parameters_that_are_not_those_of_the_settings_are_refused_before_anything_is_written(
    parameters, message, run, tmp_path, capsys
):
    with pytest.raises(SourceError, match=message):
        export("gpt2", {name: value.numpy() for name, value in parameters.items()}, GPT2, 12)
    write_checkpoint(run / "checkpoints", 10, parameters, {"model": GPT2, "task": TASK})
    with pytest.raises(SourceError, match=f"step-000010.safetensors: .*{message}"):
        export_run(run, "gpt2", tmp_path / "there/out")
    assert main([str(run), "--as", "gpt2", "--to", str(tmp_path / "there/out")]) == 2
    assert "step-000010.safetensors: " in capsys.readouterr().err
    assert not (tmp_path / "there").exists()


def import_source(run, model, places, names):
    """Import checkpoints of another program, of which no task is known, as a workflow does."""
    source = {"state": None, "names": names, "ignore": [], "evaluation_sequences": 1}
    import_run({"source": source, "model": model}, places, run, {step: "digest" for step in places}, {"model": model})


def test_a_run_imported_with_a_map_of_a_part_is_refused(tmp_path):
    save_file(drawn(LLAMA), tmp_path / "step_5.safetensors")
    names = [name for name in drawn(LLAMA) if "layers.1" not in name and ".mlp." not in name and "norm" not in name]
    lines = [f"{name}: {name}".replace("layers.0", "layers.{l}") for name in names]
    (tmp_path / "part.yaml").write_text("\n".join([*lines, "ignore: ['*norm*', '*mlp*']"]))
    import_source(tmp_path / "run", LLAMA, {5: tmp_path / "step_5.safetensors"}, str(tmp_path / "part.yaml"))
    with pytest.raises(
        SourceError, match=r"there is no layers.0.attention_norm.weight, .*mlp.gate.weight.* and 6 more"
    ):
        export_run(tmp_path / "run", "llama", tmp_path / "out", length=12)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "parameters",
    [
        changed(drawn(GPT2), [KEY]),  # the head of the file tells
        changed(drawn(GPT2), **{KEY.replace(".", "__"): drawn(GPT2)[KEY].double()}),  # once it is read
    ],
)
@pytest.mark.parametrize("target", ["gpt2", "nanogpt", "transformer_lens"])
def test_a_fault_in_the_last_step_leaves_nothing_of_the_first(target, parameters, tmp_path):
    model = NANOGPT if target == "nanogpt" else GPT2
    write_checkpoint(tmp_path / "run", 0, drawn(model), {"model": model, "task": TASK})
    write_checkpoint(tmp_path / "run", 5, parameters, {"model": model, "task": TASK})
    with pytest.raises(SourceError, match=KEY):
        export_run(tmp_path / "run", target, tmp_path / "there/out")
    assert not (tmp_path / "there").exists()
    (tmp_path / "there/out").mkdir(parents=True)
    (tmp_path / "there/out/kept").write_text("mine")
    with pytest.raises(SourceError, match=KEY):
        export_run(tmp_path / "run", target, tmp_path / "there/out")
    assert [path.name for path in (tmp_path / "there/out").iterdir()] == ["kept"]


def test_a_step_that_is_not_there_or_is_damaged_leaves_nothing(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"step-000007.safetensors: no such checkpoint; there are steps"):
        export_run(run, "gpt2", tmp_path / "out", [0, 5, 7])
    last = run / "checkpoints/step-000010.safetensors"
    last.write_bytes(last.read_bytes()[:-4] + b"1234")
    with pytest.raises(ValueError, match=r"step-000010.safetensors"):
        export_run(run, "gpt2", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_steps_of_two_models_are_not_written_under_one_config(tmp_path):
    for step, epsilon in ((0, 1e-5), (5, 1e-3)):
        model = HOOKED | {"norm_epsilon": epsilon}
        write_checkpoint(tmp_path / "run", step, drawn(model), {"model": model, "task": TASK})
    with pytest.raises(SourceError, match=r"out/config.json: is of another model"):
        export_run(tmp_path / "run", "transformer_lens", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_appears_under_a_name_meanwhile_is_kept_and_nothing_is_written(tmp_path):
    made = exported("gpt2", GPT2)

    def meanwhile(step):
        if step == 5:
            (tmp_path / "checkpoint-5").write_text("mine")
        return made

    with pytest.raises(SourceError, match="checkpoint-5: is there already"):
        write_all("gpt2", tmp_path, [0, 5], meanwhile)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]
    assert (tmp_path / "checkpoint-5").read_text() == "mine"


def test_steps_are_added_beside_the_config_of_the_others(tmp_path):
    for step in (0, 5):
        write("transformer_lens", tmp_path, step, exported("transformer_lens", HOOKED))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model_0.pt", "model_5.pt"]


def test_the_length_is_asked_for_where_nothing_tells_it(tmp_path, capsys):
    write_checkpoint(tmp_path / "run", 5, drawn(LLAMA), {"model": LLAMA, "source": {}})
    command = [str(tmp_path / "run"), "--as", "llama", "--to", str(tmp_path / "out")]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "step-000005.safetensors: the length of the context is not known" in said
    assert "give --length" in said
    assert main([*command, "--length", "0"]) == 2
    assert "--length 0: give at least one position" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--length", "2048"]) == 0
    assert json.loads((tmp_path / "out/checkpoint-5/config.json").read_text())["max_position_embeddings"] == 2048


def test_a_task_whose_file_is_not_here_tells_no_length(tmp_path):
    for number, file in enumerate([None, str(tmp_path / "moved.safetensors")]):
        task = {"name": "given_test_sets", "file": file}
        write_checkpoint(tmp_path / f"run-{number}", 5, drawn(LLAMA), {"model": LLAMA, "task": task})
        with pytest.raises(SourceError, match="the length of the context is not known"):
            export_run(tmp_path / f"run-{number}", "llama", tmp_path / "out")


def test_a_length_that_is_not_what_is_known_is_refused(run, tmp_path):
    with pytest.raises(SourceError, match="--length 13: the model has 12 by its learned positions; leave it out"):
        export_run(run, "gpt2", tmp_path / "out", length=13)
    write_checkpoint(tmp_path / "rotary", 5, drawn(LLAMA), {"model": LLAMA, "task": TASK})
    with pytest.raises(SourceError, match="--length 13: the model has 12 by its task; leave it out"):
        export_run(tmp_path / "rotary", "llama", tmp_path / "out", length=13)
    assert not (tmp_path / "out").exists()
    export_run(tmp_path / "rotary", "llama", tmp_path / "out", length=12)
    export_run(run, "gpt2", tmp_path / "out", [0], length=12)


def test_an_option_of_another_version_is_not_left_out_in_silence(tmp_path):
    write_checkpoint(tmp_path / "run", 5, drawn(GPT2), {"model": GPT2 | {"sliding_window": 4}, "task": TASK})
    with pytest.raises(SourceError, match="the model has the option sliding_window, which is not known here"):
        export_run(tmp_path / "run", "gpt2", tmp_path / "out")


@pytest.mark.parametrize("target", TARGETS)
def test_the_config_says_of_which_type_the_tensors_are(target, tmp_path):
    model = MODELS[target][0]
    double = {name: value.astype(np.float64) for name, value in arrays(model).items()}
    half = {name: value.bfloat16().float().numpy() for name, value in drawn(model).items()}
    for step, (parameters, read_as, kind) in enumerate(
        [
            (double, None, "float64"),
            (double, "F64", "float64"),
            (arrays(model), None, "float32"),
            (arrays(model), "F32", "float32"),
            (half, "BF16", "bfloat16"),
            (half, None, "float32"),
        ]
    ):
        made = export(target, parameters, model, 12, read_as)
        path = write(target, tmp_path / str(step), step, made)
        if target in HUGGING_FACE:
            assert json.loads((path / "config.json").read_text())["torch_dtype"] == kind
            state = load_file(path / "model.safetensors")
        else:
            state = torch.load(path, weights_only=True)
            state = state["model"] if target == "nanogpt" else state
        # HookedTransformerConfig makes float32 unless told, and nanoGPT's arguments have no type
        assert made.config.get("dtype", "float32") == (kind if target == "transformer_lens" else "float32")
        assert {value.dtype for value in state.values()} == {getattr(torch, kind)}


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_what_was_imported_as_half_precision_goes_out_as_it_came(kind, tmp_path):
    original = {name: torch.from_numpy(value).to(kind) for name, value in exported("gpt2", GPT2).state.items()}
    original["transformer.ln_f.bias"][:2] = torch.tensor([torch.nan, -torch.inf])
    save_file(original, tmp_path / "step_5.safetensors")
    import_source(tmp_path / "run", GPT2, {5: tmp_path / "step_5.safetensors"}, "gpt2")
    (path,) = export_run(tmp_path / "run", "gpt2", tmp_path / "out")
    back = load_file(path / "model.safetensors")
    assert back.keys() == original.keys()
    assert all(torch.equal(back[name].view(torch.int16), original[name].view(torch.int16)) for name in original)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path, dtype="auto")
    assert theirs.dtype == kind


def test_what_was_of_several_types_is_written_in_the_one_that_holds_them_all(tmp_path):
    original = {name: torch.from_numpy(value) for name, value in exported("gpt2", GPT2).state.items()}
    original["transformer.h.1.attn.c_attn.weight"] = original["transformer.h.1.attn.c_attn.weight"].bfloat16()
    save_file(original, tmp_path / "step_5.safetensors")
    import_source(tmp_path / "run", GPT2, {5: tmp_path / "step_5.safetensors"}, "gpt2")
    (path,) = export_run(tmp_path / "run", "gpt2", tmp_path / "out")
    assert json.loads((path / "config.json").read_text())["torch_dtype"] == "float32"
    back = load_file(path / "model.safetensors")
    assert all(torch.equal(back[name], original[name].float()) for name in original)


def test_numbers_that_half_precision_lacks_are_never_rounded():
    for read_as, kind in (("BF16", "bfloat16"), ("F16", "float16")):
        with pytest.raises(SourceError, match=f"embedding.weight, .*: holds numbers that {kind} lacks"):
            export("gpt2", arrays(GPT2), GPT2, 12, read_as)


def test_parameters_of_several_types_are_refused_by_name():
    for target, model in (("gpt2", GPT2), ("gpt_neox", NEOX), ("nanogpt", NANOGPT)):  # which fuse query, key and value
        parameters = arrays(model)
        parameters[KEY] = parameters[KEY].astype(np.float64)
        with pytest.raises(SourceError, match=rf"several types.* \(float32: embedding.weight, .*; float64: {KEY}\)"):
            export(target, parameters, model, 12)
    parameters = {name: value.astype(np.float16) for name, value in arrays(GPT2).items()}
    with pytest.raises(SourceError, match="of type float16, and are written from float64, float32"):
        export("gpt2", parameters, GPT2, 12)


def test_tensors_of_a_file_are_of_the_type_of_the_parameters():
    double = {name: value.astype(np.float64) for name, value in arrays(GPT2).items()}
    state = export("gpt2", double, GPT2, 12).state
    assert {str(value.dtype) for value in state.values()} == {"float64"}
    headers = {name: ForeignTensor("F64", value.shape) for name, value in state.items()}
    shapes = {name: value.shape for name, value in double.items()}
    assert bind(read_map("gpt2"), headers, shapes, GPT2).double
