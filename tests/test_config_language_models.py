"""What `config check` says of a language model's files, texts and prompts before any job."""

import shutil

import numpy as np
import pytest

from learning_geometry.config import ConfigError, validate
from learning_geometry.config.modules import settings_schema, subject
from learning_geometry.config.needs import fewest, needs, reads
from learning_geometry.config.schemas import filled
from learning_geometry.measurements.language_models import depth_growth, prompt_contrasts, untangling
from learning_geometry.model_files import check_files
from tests.gguf_files import LLAMA, TOKENIZER, llama_tensors, write_gguf
from tests.measurements.prompts import planted_run, walk
from tests.models.language.test_gguf import llama
from tests.own import own
from tests.saelens_files import perfect, write_saelens
from tests.tiny_language_model import write_tiny_language_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Four layers of width 16, which read 256 tokens, of one letter each."""
    return write_tiny_language_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def check(tmp_path, tiny):
    """Validate a config of one language model, and return its problems."""

    def run(**sections):
        model = {"model": {"source": str(tiny)}} | sections
        try:
            validate({"language_models": {"a": model}})
        except ConfigError as error:
            return [problem.removeprefix("language_models.a.") for problem in error.problems]
        return []

    return run


def text(folder, content, name="text.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def prompts(folder, pairs, name="c"):
    files = [folder / f"{name}-{which}.txt" for which in ("first", "second")]
    for file in files:
        file.write_text("\n".join(f"{file.stem} prompt number {i}" for i in range(pairs)))
    return [str(file) for file in files]


RANKS = {"activation_ranks": {}}
SHORT = {"tokens": 640, "window": 32}


def test_sizes_come_from_headers_alone(tmp_path, tiny):
    sizes = check_files(tiny).layout
    assert (sizes.layers, sizes.width, sizes.context) == (4, 16, 256)


def test_what_fits_is_accepted(check, tmp_path):
    found = {"first": text(tmp_path, "words " * 200, "one"), "second": text(tmp_path, "other " * 200, "two")}
    assert check(texts=found, text=SHORT | {"layers": [0, -4]}, measurements=RANKS) == []
    assert check(prompts={"c": prompts(tmp_path, 9)}, measurements={"untangling": {}}) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no text; pass a file that does"),
        (b" \n\t ", "holds no text; pass a file that does"),
        (b"\x89PNG\r\n\x1a\n" + bytes(700), "not UTF-8 text"),
        ("words in another coding: é".encode("latin-1") * 40, "not UTF-8 text"),
        (b"words\0" * 200, "holds a NUL, so that it is no text"),
    ],
)
def test_what_is_no_text_is_refused(check, tmp_path, content, says):
    problem, *_ = check(texts={"t": text(tmp_path, content)}, text=SHORT, measurements=RANKS)
    assert problem.startswith("texts.t: ") and says in problem


def test_a_text_that_is_too_short_is_refused(check, tmp_path):
    short, longer = text(tmp_path, "words " * 100, "short"), text(tmp_path, "words " * 200, "longer")
    says = "text.tokens: 640 tokens, and the text short has at most {}; lower it, or give a longer text"
    assert check(texts={"longer": longer, "short": short}, text=SHORT, measurements=RANKS) == [says.format(601)]
    # where its tokenizer is here tokens are counted: of these letters of two bytes each is one
    of_two_bytes = text(tmp_path, "é" * 400, "two-bytes")
    assert check(texts={"short": of_two_bytes}, text=SHORT, measurements=RANKS) == [says.format(400)]
    loss = {"downstream_loss": {"windows": 20, "tokens": 32, "texts": ["longer"]}}
    assert check(texts={"longer": longer}, text=SHORT, measurements=loss) == []
    loss["downstream_loss"]["windows"] = 40
    assert check(texts={"longer": longer}, text=SHORT, measurements=loss) == [
        "measurements.downstream_loss.windows: 1280 tokens, and the text longer has at most 1201; lower it, or give a "
        "longer text"
    ]
    # without a tokenizer a text has at most one token a byte
    gguf = write_gguf(tmp_path / "model.gguf", LLAMA | TOKENIZER | {"llama.vocab_size": 31}, llama_tensors(llama()))
    assert check(model={"source": str(gguf)}, texts={"short": of_two_bytes}, text=SHORT, measurements=RANKS) == []


@pytest.mark.parametrize("lacks", ["package", "sound file"])
def test_without_a_tokenizer_that_can_be_read_a_text_has_at_most_one_token_a_byte(
    check, tmp_path, tiny, monkeypatch, lacks
):
    texts = {"short": text(tmp_path, "é" * 400)}
    folder = shutil.copytree(tiny, tmp_path / "model")
    sections = {"model": {"source": str(folder)}, "texts": texts, "text": SHORT, "measurements": RANKS}
    (problem,) = check(**sections)
    assert "the text short has at most 400" in problem
    if lacks == "package":
        monkeypatch.setattr("learning_geometry.config.language_models.find_spec", lambda name: None)
    else:
        (folder / "tokenizer.json").write_text('{"model": {}}')
    assert check(**sections) == []


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"text": SHORT | {"window": 300}}, "text.window: 300 is more than the model's context of 256; lower it"),
        ({"text": SHORT | {"layers": [1, 4]}}, "text.layers: no layer 4; the model has 0 to 3"),
        ({"text": SHORT | {"layers": [-5]}}, "text.layers: no layer -5; the model has 0 to 3"),
        ({"text": SHORT | {"moment_layers": [0, 4]}}, "text.moment_layers: no layer 4; the model has 0 to 3"),
        ({"measurements": {"downstream_loss": {"layers": [7]}}}, "measurements.downstream_loss.layers: no layer 7"),
        (
            {"measurements": {"downstream_loss": {"tokens": 257}}},
            "measurements.downstream_loss.tokens: 257 is more than the model's context of 256",
        ),
        (
            {"measurements": {"dictionary_sweep": {"k": 33, "dictionaries": {"c": {"latents": 32}}}}},
            "measurements.dictionary_sweep.dictionaries.c.latents: 32 is fewer than k, 33",
        ),
        (
            {"measurements": {"dictionary_sweep": {"layer": 2}}},
            "measurements.dictionary_sweep.layer: 2 is not kept of texts; take one of [3]",
        ),
        (
            {"measurements": {"dictionary_sweep": {"batch_size": 600}}},
            "measurements.dictionary_sweep.batch_size: 600 is more than the 589 vectors",
        ),
        (
            {"measurements": {"dictionary_sweep": {}}, "text": {"tokens": 40, "window": 32}},
            "text.tokens: one window of 32, and dictionary_sweep holds a window of each text out; raise it",
        ),
        (
            {"measurements": {"dictionary_sweep": {"texts": ["u"]}}},
            "measurements.dictionary_sweep.texts: u is no text of this language model; there are ['t']",
        ),
        (
            {"measurements": {"dictionary_sweep": {}}, "text": SHORT | {"parts": ["attention.output", "mlp.output"]}},
            "measurements.dictionary_sweep: it reads mlp.input, not kept of texts; add it to text.parts",
        ),
        (
            {"measurements": {"activation_patterns_by_layer": {}}, "text": SHORT | {"parts": ["mlp.output"]}},
            "measurements.activation_patterns_by_layer: it reads mlp.input, not kept of texts",
        ),
    ],
    ids=str,
)
def test_what_the_model_is_not_is_said_before_any_job(check, tmp_path, sections, says):
    given = {"texts": {"t": text(tmp_path, "words " * 400)}, "text": SHORT, "measurements": RANKS} | sections
    problems = check(**given)
    assert any(problem.startswith(says) for problem in problems), problems


def test_a_rank_above_the_width_is_refused(check, tmp_path):
    of_sixteen = {"prompts": {"c": prompts(tmp_path, 30)}, "measurements": {"untangling": {"rank": 17}}}
    says = "measurements.untangling.rank: 17 is more than the model's width of 16; lower it"
    assert check(**of_sixteen) == [says]


def test_the_same_text_or_prompts_under_two_names_are_refused(check, tmp_path):
    texts = {"one": text(tmp_path, "words " * 400, "a"), "two": text(tmp_path, "words " * 400, "b")}
    assert check(texts=texts, text=SHORT, measurements=RANKS) == [
        "texts.two: the same text as one; leave one of them out"
    ]
    embedded = {"one": "python_source", "two": "python_source"}
    assert check(texts=embedded, text=SHORT, measurements=RANKS) == [
        "texts.two: the same text as one; leave one of them out"
    ]
    first, second = prompts(tmp_path, 9)
    for sets in ([first, second], [second, first]):
        found = check(prompts={"c": [first, second], "d": sets}, measurements={"depth_growth": {}})
        assert found == ["prompts.d: the same prompts as c; leave one of them out"]


def test_prompts_that_are_no_pairs_are_refused(check, tmp_path):
    def problem(first, second):
        files = [text(tmp_path, content, name) for content, name in ((first, "first"), (second, "second"))]
        (found,) = check(prompts={"c": files}, measurements={"depth_growth": {}})
        return found

    assert "second: holds 2 prompts, and" in problem("a b\nc d\ne f", "g h\ni j")
    assert "first, line 2: empty; delete the line" in problem("a b\n\ne f", "g h\ni j")
    assert "first, line 3: the same prompt as in line 1" in problem("a b\nc d\na b", "g h\ni j\nk l")
    assert "second, line 2: the same prompt as in" in problem("a b\nc d", "g h\na b")
    assert "holds no prompt; write one a line" in problem("", "g h")
    assert "not UTF-8 text" in problem(b"\xff\xfe", "g h")


OF_PROMPTS = sorted(
    name
    for name in own("measurements")
    if subject(name) == "language_models" and {"prompts", "untrained_prompts"} & set(reads(name))
)


@pytest.mark.parametrize("name", OF_PROMPTS)
def test_too_few_pairs_are_refused_before_any_job(check, tmp_path, name):
    settings = filled({}, settings_schema("measurements", name))
    number, _ = fewest(needs(name)["pairs"], settings)
    assert number == {"depth_growth": 2, "prompt_contrasts": 3, "shared_directions": 2, "untangling": 9}[name]
    assert check(prompts={"c": prompts(tmp_path, number)}, measurements={name: {}}) == []
    (problem,) = check(prompts={"c": prompts(tmp_path, number - 1)}, measurements={name: {}})
    assert problem.startswith(f"prompts.c: {number - 1} pair") and f"of prompts, and {name} needs {number}" in problem


def test_the_setting_that_asks_for_pairs_is_named(check, tmp_path):
    few = prompts(tmp_path, 4)
    (problem,) = check(prompts={"c": few}, measurements={"untangling": {"rank": 2}})
    assert problem == "prompts.c: 4 pairs of prompts, and untangling needs 5 (folds: 5); write more"
    assert check(prompts={"c": few}, measurements={"untangling": {"rank": 2, "folds": 4}}) == []


@pytest.mark.parametrize("module", [depth_growth, prompt_contrasts, untangling])
def test_as_many_pairs_as_are_asked_for_are_measured_with_intervals(module):
    name = module.__name__.rpartition(".")[2]
    few = {"resamples": 50, "rank": 1, "folds": 2, "swapped_labellings": 4, "swapped_shapes": 2}
    schema = settings_schema("measurements", name)
    settings = filled({key: value for key, value in few.items() if key in schema["properties"]}, schema)
    number, _ = fewest(needs(name)["pairs"], settings)
    table = module.measure(planted_run(walk(np.random.default_rng(0), 2 * number), {"c": number}), settings)
    assert table["value"].notna().all()
    variances = table[(table["null"] == "") & table["quantity"].str.startswith("mean_variance")]
    assert variances["low"].notna().sum() >= len(variances) - 2  # of the embedding, which is the same for all


OWN = "measurements.dictionary_sweep.dictionaries.mine"


@pytest.mark.parametrize(
    ("width", "files", "entry", "changed", "says"),
    [
        (16, {}, {}, {}, None),
        (16, {}, {"latents": 8}, {}, f"{OWN}.latents: unknown key; did you mean tokens? allowed: saelens, activation"),
        (16, {}, {"k": 8}, {}, f"{OWN}.k: unknown key"),
        (16, {}, {"windows": 3}, {}, f"{OWN}.windows: got 3, expected integer ≥ 10"),
        (16, {}, {"tokens": 257}, {}, f"{OWN}.tokens: 257 is more than the model's context of 256"),
        (16, {}, {"saelens": "nowhere"}, {}, f"{OWN}.saelens: nowhere/cfg.json: no such file"),
        (16, {}, {"saelens": "~/sae"}, {}, f"{OWN}.saelens: ~ is not expanded in a config"),
        (12, {}, {}, {}, f"{OWN}.saelens: it is for vectors of width 12, and layers.3.attention.output has 16"),
        (16, {"architecture": "gated"}, {}, {}, f"{OWN}.saelens: SAE/cfg.json: architecture is 'gated', and read are"),
        (
            16,
            {"reshape_activations": "hook_z"},
            {},
            {},
            f"{OWN}.saelens: SAE/cfg.json: reshape_activations is 'hook_z'",
        ),
        (16, {}, {}, {"layer": 2}, f"{OWN}.saelens: it reads layers.3.attention.output, and layer is 2; set"),
        (
            16,
            {"hook": "blocks.2.hook_mlp_out"},
            {},
            {},
            f"{OWN}.saelens: it reads layers.2.mlp.output, not kept of texts",
        ),
        (
            16,
            {"hook": "blocks.3.attn.hook_z"},
            {},
            {},
            f"{OWN}.saelens: it reads attention.z, not kept of texts; add it",
        ),
        (
            16,
            {"hook": "blocks.9.hook_mlp_out"},
            {},
            {},
            f"{OWN}.saelens: it reads layers.9.mlp.output, and the model has",
        ),
        (16, {"hook": "blocks.3.hook_q"}, {}, {}, f"{OWN}.saelens: SAE/cfg.json: hook_name: blocks.3.hook_q is none"),
        (16, {}, {"activation": "layers.3.mlp.output"}, {}, f"{OWN}.saelens: activation: layers.3.mlp.output, and by"),
    ],
)
def test_a_folder_of_saelens_is_checked_before_any_job(check, tmp_path, width, files, entry, changed, says):
    files = dict(files)
    hook = files.pop("hook", "blocks.3.hook_attn_out")
    folder = write_saelens(tmp_path / "sae", perfect(width), metadata={"hook_name": hook}, **files)
    sweep = {"dictionaries": {"mine": {"saelens": str(folder)} | entry}, "batch_size": 64} | changed
    texts = {"t": text(tmp_path, "words " * 400)}
    problems = check(texts=texts, text=SHORT | {"layers": [3]}, measurements={"dictionary_sweep": sweep})
    problems = [problem.replace(str(folder), "SAE") for problem in problems]
    assert problems == [] if says is None else any(each.startswith(says) for each in problems), problems


@pytest.mark.parametrize("option", ["aligned", "whitened"])
def test_a_transcoder_has_no_options_of_autoencoders(check, tmp_path, option):
    entry = {"latents": 32, "target": "transcoder", option: True}
    problems = check(
        texts={"t": text(tmp_path, "words " * 400)},
        text=SHORT,
        measurements={"dictionary_sweep": {"dictionaries": {"c": entry}, "batch_size": 64}},
    )
    where = f"measurements.dictionary_sweep.dictionaries.c.{option}"
    assert problems == [f"{where}: a transcoder reads other vectors than it gives; leave it out"]
