#!/usr/bin/env bash
# transformers 5.24.0 puts the name of a type in the place of values given to apply_chat_template, without a word: a
# date in a message or in a variable of the template comes out as "<date>".
#
# Expected: values that are not plain JSON are written as Jinja writes them, which is str(), and count as true or false
#   as in Python; or an error that names the value.
# Seen: dates, decimals, UUIDs, paths and members of a plain Enum are written as "<" type ">", also by tojson, where
#   Python's json raises; an empty set and a decimal of 0 count as true. A function given as a variable is text too, so
#   a template that calls it fails with an error that speaks of a str. This keeps objects' methods from templates, but
#   there is no warning, and the documentation of the arguments does not say it.
#
# The script installs public packages in a temporary folder, makes a tokenizer of one word, and ends with 1 if the
# behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
nice -n 10 "$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 transformers==5.24.0 tokenizers==0.23.3 \
    jinja2==3.1.6
cat > "$folder/show.py" <<'PYTHON'
import datetime
import decimal
import enum
import json
import pathlib
import sys
import uuid

import jinja2
import tokenizers
import transformers
from transformers import PreTrainedTokenizerFast

print(f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}, jinja2 {jinja2.__version__}")
word = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=word, unk_token="<unk>")


class Unit(enum.Enum):
    METRE = "m"


def render(template, content="", **variables):
    messages = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **variables)


def error(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except TypeError as raised:
        return f"TypeError: {raised}"
    return None


as_found = True
for value in ["text", 3, 0.5, datetime.date(2026, 1, 2), decimal.Decimal("3.50"), uuid.UUID(int=1),
              pathlib.PurePosixPath("a/b"), Unit.METRE]:
    name = type(value).__name__
    expected = jinja2.Template("{{ x }}").render(x=value)
    seen = [render("{{ x }}", x=value), render("{{ messages[0].content }}", value)]
    in_json = render("{{ messages[0].content | tojson }}", {"value": value})
    print(f"{name}: expected {expected!r}, seen {seen[0]!r} in a variable, {seen[1]!r} in a message, {in_json} as JSON")
    if isinstance(value, (str, int, float)):
        as_found &= seen == [expected] * 2 and json.loads(in_json) == {"value": value}
    else:
        as_found &= seen == [f"<{name}>"] * 2 and json.loads(in_json) == {"value": f"<{name}>"}
        as_found &= error(json.dumps, value) is not None

for value in [[], 0, set(), decimal.Decimal(0)]:
    seen = render("{% if x %}true{% else %}false{% endif %}", x=value)
    print(f"if {value!r}: expected 'false', seen {seen!r}")
    as_found &= seen == ("false" if type(value) in (list, int) else "true")


def first_day(form):
    return datetime.date(2026, 1, 1).strftime(form)


seen = error(render, "{{ strftime_now('%Y') }}", strftime_now=first_day)
print(f"strftime_now=function: expected '2026', seen {seen}")
as_found &= seen == "TypeError: 'str' object is not callable"
print("as found" if as_found else "the behaviour has changed")
sys.exit(not as_found)
PYTHON
nice -n 10 "$folder/venv/bin/python" "$folder/show.py"
