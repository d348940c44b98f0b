"""The words of the ledger for what rules read: names, series, windows."""

from learning_geometry.claims.claim import ANY_INDEX, Claim, Series, Window


def words(name: str) -> str:
    """Return a name in words.

    >>> words("random_subspace")
    'random subspace'
    """
    return name.replace("_", " ")


def series_words(series: Series) -> str:
    """Return which rows a series reads.

    >>> series_words(Series("head_score", part="layers.1", index=(1, 3), data="held_out"))
    'head score (layers.1, largest of indices 1 to 3, held out)'
    """
    part = series.part.removeprefix("layers.*").removeprefix(".") if "*" in series.part else series.part
    places = [words(part)] if part not in ("model", "") else []
    if series.index == ANY_INDEX:
        pass
    elif isinstance(series.index, tuple):
        places.append(f"largest of indices {series.index[0]} to {series.index[1]}")
    elif series.index:
        places.append(f"index {series.index}")
    if series.data:
        places.append(words(series.data))
    if series.relative_to:
        places.append(f"over the upper limit of {words(series.relative_to)}")
    return words(series.quantity) + (f" ({', '.join(places)})" if places else "")


def window_words(window: Window) -> str:
    """Return a window in units of the run's own time, of which t is the step of the claim's event.

    >>> window_words(Window(0.5, 0.75)), window_words(Window(0.9, 1.0, "training", not_before=1.5))
    ('0.5–0.75 t', '0.9–1 training (not before 1.5 t)')
    """
    unit = "t" if window.of == "transition" else "training"
    text = f"{window.start:g}–{window.stop:g} {unit}"
    return text + (f" (not before {window.not_before:g} t)" if window.not_before else "")


def within_or_beyond_zero(side: str, margin: float | None) -> str:
    """Return what a difference is compared with: a margin about 0 if there is one, or 0.

    >>> within_or_beyond_zero("within", 0.02), within_or_beyond_zero("above", None)
    ('within ±0.02', 'above 0')
    """
    return f"within ±{margin:g}" if margin else f"{side} 0"


def taken_as_independent(claim: Claim) -> str:
    """Return what is assumed of layers where they are the units, and not models."""
    return "" if claim.unit == "model" else ", taken as independent"
