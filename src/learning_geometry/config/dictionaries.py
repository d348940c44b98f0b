"""What a config says of dictionaries, checked before any job: options that go together, and folders of SAELens."""

from collections.abc import Mapping
from typing import Any

from learning_geometry.config.problems import Report
from learning_geometry.model_files import ModelFiles
from learning_geometry.sources.saelens import ENTRIES, FOLDER, Description, describe, saelens_folders

OF_AUTOENCODERS = ("aligned", "whitened")
"""Options of a dictionary that gives what it reads."""


def check_options(measurement: str, settings: Mapping[str, Any], report: Report) -> None:
    """Report fewer latents than are to be active, and options that a transcoder does not have."""
    for name, options in settings.get(ENTRIES, {}).items() if "k" in settings else ():
        where = f"measurements.{measurement}.{ENTRIES}.{name}"
        if FOLDER in options:
            continue
        if options["latents"] < settings["k"]:
            report(
                f"{where}.latents",
                f"{options['latents']} is fewer than k, {settings['k']}; raise it, or lower k",
            )
        for option in OF_AUTOENCODERS:
            if options.get(option) and options["target"] == "transcoder":
                report(f"{where}.{option}", "a transcoder reads other vectors than it gives; leave it out")


def check_folders(
    measurement: str,
    settings: Mapping[str, Any],
    text: Mapping[str, Any],
    model: ModelFiles | None,
    report: Report,
) -> None:
    """Report folders of SAELens that cannot be read, and dictionaries of something else than what is captured.

    Args:
        measurement: its name.
        settings: its settings.
        text: the section ``text`` of the language model: which activations are kept.
        model: its files; None: they are not here, and less is checked.
        report: to add to.
    """
    for name, folder in saelens_folders(settings).items():
        where, entry = f"measurements.{measurement}.{ENTRIES}.{name}", settings[ENTRIES][name]
        try:
            description = describe(folder)
            family = None if model is None else str(model.config["model_type"])
            names = description.activations(entry["activation"], family)
        except (FileNotFoundError, ValueError) as error:
            report(f"{where}.{FOLDER}", str(error))
            continue
        layer = int(names[0].split(".")[1])
        if settings["layer"] is not None and settings["layer"] != layer:
            report(
                f"{where}.{FOLDER}",
                f"it reads {names[0]}, and layer is {settings['layer']}; set layer to null, and each dictionary is "
                "judged on its own layer",
            )
        _check_kept(where, names, text, model, report)
        if model is not None:
            _check_model(where, entry, description, names, model, report)


def _check_kept(
    where: str, names: tuple[str, str], text: Mapping[str, Any], model: ModelFiles | None, report: Report
) -> None:
    layer = int(names[0].split(".")[1])
    if model is not None and layer >= model.layout.layers:
        report(f"{where}.{FOLDER}", f"it reads {names[0]}, and the model has layers 0 to {model.layout.layers - 1}")
        return
    kept = [each % model.layout.layers if model else each for each in text["layers"]]
    if layer not in kept and (model is not None or min(kept) >= 0):
        report(f"{where}.{FOLDER}", f"it reads {names[0]}, not kept of texts; add {layer} to text.layers")
    parts = dict.fromkeys(name.split(".", 2)[2] for name in names)
    if missing := [part for part in parts if part not in text["parts"]]:
        report(f"{where}.{FOLDER}", f"it reads {', '.join(missing)}, not kept of texts; add it to text.parts")


def _check_model(
    where: str,
    entry: Mapping[str, Any],
    description: Description,
    names: tuple[str, str],
    model: ModelFiles,
    report: Report,
) -> None:
    config, sizes = model.config, model.layout
    heads = config.get("num_attention_heads") or config.get("n_head") or sizes.width // sizes.head_width
    for name in names:
        width = heads * sizes.head_width if name.endswith(".attention.z") else sizes.width
        if description.inputs != width:
            report(
                f"{where}.{FOLDER}",
                f"it is for vectors of width {description.inputs}, and {name} has {width}; it is of another model",
            )
    if entry["tokens"] > sizes.context:
        report(f"{where}.tokens", f"{entry['tokens']} is more than the model's context of {sizes.context}; lower it")
