import numpy as np
import pytest

from learning_geometry.figures import style
from learning_geometry.figures.embedding_singular_values import draw

OPTIONS = {"experiments": ["copying"], "tasks": {"copying": {}}}


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_full_figure(spectrum_tables):
    figure = draw(spectrum_tables(), OPTIONS)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == style.DOUBLE_WIDTH
    over_training, spectra, rank, _ = figure.axes
    (lines,) = over_training.collections
    assert len(lines.get_segments()) == 64
    assert lines.get_array().tolist() == list(range(1, 65))
    assert len(spectra.lines) == 3 + 3 + 2  # three checkpoints, each with its null; ends of the groups
    assert len(spectra.collections) == 3 + 3
    assert len(rank.lines) == 1 + 5 + 1
    assert len(rank.collections) == 2
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "training step",
        "rank of singular value",
        "training step",
        "training step",
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "singular value",
        "singular value",
        "effective rank",
        "gap after rank",
    ]
    # step 1750 is no checkpoint
    steps = ["step 0, n = 5", "step 1700, n = 5", "step 3500, n = 5"]
    assert legend(spectra) == [*steps, "null: Gaussian matrix"]
    assert legend(rank) == ["embedding, n = 5", "null: Gaussian matrix"]


def test_segments_are_the_means_over_seeds(spectrum_tables):
    tables = spectrum_tables()
    runs = tables["runs"]
    first = runs[(runs["quantity"] == "singular_value") & (runs["null"] == "") & (runs["index"] == 1)]
    (lines,) = draw(tables, OPTIONS).axes[0].collections
    means = first.groupby("step")["value"].mean()
    np.testing.assert_allclose(lines.get_segments()[0], np.column_stack([means.index, means]), rtol=1e-12)


def test_significant_gaps_are_shown_where_they_are(spectrum_tables):
    gaps = draw(spectrum_tables(), OPTIONS).axes[3]
    (points,) = gaps.collections
    shares = {
        tuple(place): share for place, share in zip(points.get_offsets().tolist(), points.get_array(), strict=True)
    }
    assert {rank for _, rank in shares} == {1, 35}
    assert min(step for step, rank in shares if rank == 1) == 1800
    assert shares[3500, 1] == shares[3500, 35] == 1.0
    assert shares[2500, 35] == pytest.approx(0.2)
    assert gaps.get_xlim() == (0, 3500)
    assert sorted(line.get_ydata()[0] for line in gaps.lines) == [1, 35]


def test_no_gap_is_said_so(spectrum_tables):
    tables = {}
    for name, column in (("summary", "estimate"), ("runs", "value")):
        table = spectrum_tables(seeds=2)[name]
        tables[name] = table.assign(**{column: table[column].where(table["quantity"] != "significant_gap", 0.0)})
    assert "none" in [text.get_text() for text in draw(tables, OPTIONS).axes[3].texts]


def test_groups_are_named_if_the_embedding_has_them(spectrum_tables):
    spectra, gaps = (draw(spectrum_tables(), OPTIONS).axes[place] for place in (1, 3))
    assert {"medium, 34", "bottom, 29"} <= {text.get_text() for text in spectra.texts}
    narrow = {name: table[table["index"] < 30] for name, table in spectrum_tables().items()}
    spectra, gaps = (draw(narrow, OPTIONS).axes[place] for place in (1, 3))
    assert len(spectra.texts) == 1 and not gaps.lines  # the panel's letter


def test_one_seed(spectrum_tables):
    _, spectra, rank, _ = draw(spectrum_tables(seeds=1), OPTIONS).axes
    assert len(rank.lines) == 2
    assert len(spectra.collections) == 3  # the nulls alone have bands
    assert legend(rank)[0] == "embedding, n = 1"


def test_one_checkpoint(spectrum_tables):
    tables = {name: table[table["step"] == 3500] for name, table in spectrum_tables().items()}
    _, spectra, *_ = draw(tables, OPTIONS).axes
    assert legend(spectra) == ["step 3500, n = 5", "null: Gaussian matrix"]


def test_what_is_missing_is_named(spectrum_tables):
    tables = spectrum_tables()
    for quantity in ("singular_value", "effective_rank", "significant_gap"):
        fewer = {name: table[table["quantity"] != quantity] for name, table in tables.items()}
        with pytest.raises(ValueError, match=quantity):
            draw(fewer, OPTIONS)
    with pytest.raises(ValueError, match="null='gaussian_matrix'"):
        draw({name: table[table["null"] == ""] for name, table in tables.items()}, OPTIONS)
    with pytest.raises(ValueError, match="copying_one_layer"):
        draw(tables, {"experiments": ["copying", "copying_one_layer"]})


def test_drawing_twice_saves_the_same_bytes(spectrum_tables, tmp_path):
    tables = spectrum_tables(seeds=2)
    for name in ("first", "second"):
        style.save(draw(tables, OPTIONS), tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
    for suffix in ("pdf", "png"):
        assert (tmp_path / f"first.{suffix}").read_bytes() == (tmp_path / f"second.{suffix}").read_bytes()
