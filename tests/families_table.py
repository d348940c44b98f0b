"""The table of docs/families.md, of descriptions and of tiny models of every family, all of which are checked.

``python -m tests.families_table --into docs/families.md`` writes it there; without ``--into`` it is printed.
"""

import argparse
from pathlib import Path

from learning_geometry.models.language.descriptions import FAMILIES, known_family
from learning_geometry.models.language.families import wrap
from learning_geometry.models.language.self_check import check_identities

from .tiny_families import CONFIGS, module_of

BEGIN, END = (f"<!-- {word} of what `python -m tests.families_table` prints -->" for word in ("begin", "end"))
HEAD = ("`model_type`", "between W_O and the stream", "attention and MLP", "norms", "refused by name", "largest error")
BOUND = 1e-5
"""The largest error that the table may stand for: digits of rounding differ between processors."""

NORMS = {"layer": "LayerNorm", "root_mean_square": "RMSNorm"}
LEFT_OUT = {
    "query_key": "W_QK",
    "output_value": "W_OV",
    "mixture": "what reads W_gate or W_down",
}


def table() -> str:
    """Return the table; every row is of all tiny models of the family."""
    models = {name: module_of(name) for name in CONFIGS}
    lines = [HEAD, tuple("---" for _ in HEAD)]
    for family in sorted(FAMILIES):
        of_family = {name: module for name, module in models.items() if module.config.model_type == family}
        lines.append((f"`{family}`", *_cells(of_family)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cells(modules):
    between, layers, norms, refused = set(), set(), set(), set()
    for name, module in modules.items():
        family, model = known_family(module.config, name), wrap(module, name)
        check_identities(model, module, tolerance=BOUND)
        layers.add("parallel" if model.parallel else "sequential")
        between.add(_between(family))
        places = {"before": family.attention_norm, "after": family.norm_after_attention}
        kind = NORMS[family.norm] + ("" if family.weight_offset == 0 else ", 1 + w")
        norms.add(f"{kind}, {' and '.join(place for place, there in places.items() if there)}")
        # products that are refused in some configs alone are said to be so in those
        refused |= {LEFT_OUT[product] + _when(product, modules) for product in model.besides}
        if any(model.layer_weights(layer).down is None for layer in range(model.sizes.layers)):
            refused.add(LEFT_OUT["mixture"])
    return (
        *("; ".join(sorted(found)) for found in (between, layers, norms)),
        "; ".join(sorted(refused)),
        f"< {BOUND:g}",
    )


def _between(family):
    if family.norm_after_attention:
        return f"RMSNorm `{family.norm_after_attention}`"
    return f"the factor `{family.factor}`" if family.factor else "nothing"


def _when(product, modules):
    every = all(product in wrap(module, name).besides for name, module in modules.items())
    keys = [
        key
        for key in ("clip_qkv", "qk_layernorm", "use_qk_norm")
        if any(getattr(m.config, key, None) for m in modules.values())
    ]
    return "" if every else f" with {' or '.join(f'`{key}`' for key in keys)}"


def into(path: str | Path) -> None:
    """Put the table into a file, between its two marks."""
    before, begin, rest = Path(path).read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path}: lacks the lines {BEGIN!r} and {END!r}, between which the table stands; add them")
    Path(path).write_text(f"{before}{BEGIN}\n\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", metavar="FILE", help="write it between the two marks of a file, docs/families.md")
    options = parser.parse_args()
    if options.into:
        into(options.into)
    else:
        print(table(), end="")
