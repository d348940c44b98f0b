"""A tiny language model that was captured, as measurements of language models are given one."""

from learning_geometry.measurements.common.language_capture import capture_prompts, capture_text
from learning_geometry.measurements.common.language_run import LanguageRun
from learning_geometry.models.language.loading import load
from learning_geometry.seeding import seeded
from tests.tiny_language_model import write_tiny_language_model

TEXT = {"tokens": 2560, "window": 32, "layers": [1], "parts": ["attention.output", "mlp.input", "mlp.output"]}


def tiny_language_run(tmp_path, pairs=12, layers=4, width=16, output=None):
    """Two texts, two contrasts of some pairs, trained (random) and untrained (other random) weights."""
    model = {
        "source": str(write_tiny_language_model(tmp_path / "model", layers, width)),
        "revision": None,
        "gguf": None,
        "download": False,
    }
    prompts = {}
    for name, sets in {"harmfulness": ("harmful", "harmless"), "sentiment": ("negative", "positive")}.items():
        files = [tmp_path / f"{which}.txt" for which in sets]
        for file, which in zip(files, sets, strict=True):
            file.write_text("\n".join(f"{which} thing number {i}" for i in range(pairs)))
        prompts[name] = [str(file) for file in files]
    texts = {"documentation": "python_documentation", "source_code": "python_source"}
    trained = load(**model)
    for name, source in texts.items():
        capture_text(trained, source, TEXT, tmp_path / "texts" / name)
    for weights, each in {"trained": trained, "untrained": load(**model, untrained=seeded("untrained"))}.items():
        capture_prompts(each, prompts, True, tmp_path / "prompts" / weights)
    return LanguageRun(
        "tiny_language",
        {"model": model, "texts": texts, "text": TEXT, "prompts": prompts, "chat_template": True},
        {name: tmp_path / "texts" / name for name in texts},
        {weights: tmp_path / "prompts" / weights for weights in ("trained", "untrained")},
        output,
    )
