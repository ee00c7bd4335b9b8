"""Digests depend on content alone; drawings are small, readable Markdown."""

import base64
import io

import matplotlib as mpl
import polars as pl
import pytest
from PIL import Image

from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.base.tables import USERS
from rlhi_dagster.graph.metadata import bars, markdown_table, plot, result


def users(*ids: str) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(USERS.columns), "user_id": user} for user in ids], schema=USERS.schema)


def test_fingerprint_ignores_chunks_and_order_but_not_content_or_types() -> None:
    frame = pl.DataFrame({"text": ["á", None, "c"], "numbers": [[1], [], None]})
    chunked = pl.concat([frame[:1], frame[1:]], rechunk=False)
    assert chunked.n_chunks() == 2
    assert fingerprint(chunked) == fingerprint(frame)
    assert fingerprint(frame.reverse()) == fingerprint(frame)
    different = [
        pl.concat([frame, frame[:1]]),
        frame.with_columns(pl.col("text").reverse()),
        frame.with_columns(pl.col("text").fill_null("")),
        frame.with_columns(pl.col("numbers").fill_null([])),
        frame.with_columns(pl.col("numbers").cast(pl.List(pl.Int32))),
        frame.rename({"text": "words"}),
        frame[:2],
    ]
    assert len({fingerprint(frame), *map(fingerprint, different)}) == len(different) + 1


def test_fingerprint_is_fixed_across_runs() -> None:
    frame = pl.DataFrame({"a": [1.5, None], "b": ["x", "y"]})
    assert fingerprint(frame) == "e1f635e93b08f9d965c4d1b6d9481cdc2d0f001b9b9ccccf8b64960ddcb41e0e"


def test_result_conforms_versions_and_reports() -> None:
    shuffled = result("users", users("b", "a"), split_counts=bars({"train": 2}), held_out_fraction=0.5)
    assert shuffled.value["user_id"].to_list() == ["a", "b"]
    assert shuffled.data_version == result("users", users("a", "b")).data_version
    assert shuffled.data_version != result("users", users("a", "c")).data_version
    assert shuffled.metadata is not None
    assert shuffled.metadata["held_out_fraction"] == 0.5


def test_bars_are_scaled_and_empty_counts_are_legal() -> None:
    lines = bars({"short|long": 1_000, "none": 0}, width=10).md_str.splitlines()
    assert lines[2] == "| `short\\|long` | 1,000 | ██████████ |"
    assert lines[3] == "| none | 0 |  |"
    assert bars({}).md_str.count("\n") == 1


def test_markdown_table_escapes_shortens_and_counts_what_it_leaves_out() -> None:
    frame = pl.DataFrame({"recipe": ["a|b", "x" * 100, None], "value": [0.123456, 2.0, 3.0]})
    lines = markdown_table(frame, max_rows=2).md_str.splitlines()
    assert lines[1] == "|---|--:|"
    assert lines[2] == "| `a\\|b` | 0.1235 |"
    assert "x" * 80 not in lines[3]
    assert lines[-1].strip() == "1 more rows"


def test_numbers_are_read_without_exponents_and_what_rounding_leaves_of_0_is_0() -> None:
    frame = pl.DataFrame({"value": [1.388e-17, 0.00012345, 12345.678, 1.5]})
    assert [line.strip("| ") for line in markdown_table(frame).md_str.splitlines()[2:]] == ["0", "0.0001234", "12,346", "1.5"]


def test_a_wide_table_of_few_rows_is_turned_so_that_it_fits_and_one_of_many_rows_is_not() -> None:
    names = [f"a_rather_long_name_{number}" for number in range(6)]
    frame = pl.DataFrame({"strategy": ["feedback", "scratch"]} | {name: [1.0, 2.0] for name in names})
    lines = markdown_table(frame).md_str.splitlines()
    assert lines[0] == "| strategy | feedback | scratch |"
    assert lines[2] == "| a_rather_long_name_0 | 1 | 2 |"
    assert len(lines) == 2 + len(names)
    assert len(markdown_table(frame).md_str) < 1_000, "shown in place"
    many = pl.concat([frame] * 10)
    assert markdown_table(many).md_str.splitlines()[0].startswith("| strategy | a_rather_long_name_0")
    reasons = ["a reason of a good many words, more than fit", "and another of more"]
    few_columns = pl.DataFrame({"reason": reasons, "share": [0.5, 0.25], "n": [1, 2]})
    assert len(markdown_table(few_columns).md_str) == 1_000, "too wide for the page, so it is opened"


def test_plot_embeds_a_small_png_with_all_colours_and_refuses_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    for order in range(10):
        axes.axhline(order, color=f"C{order}", linewidth=2)
    picture = Image.open(io.BytesIO(base64.b64decode(plot(figure).md_str.split("base64,")[1].rstrip(")"))))
    assert picture.format == "PNG"
    kept = {colour for _, colour in picture.convert("RGB").getcolors()}
    for order in range(10):
        red, green, blue = (round(255 * part) for part in mpl.colors.to_rgb(f"C{order}"))
        assert any(max(abs(red - r), abs(green - g), abs(blue - b)) <= 8 for r, g, b in kept), order
    monkeypatch.setattr("rlhi_dagster.base.pictures.MAX_BYTES", 100)
    assert "left out" in plot(figure).md_str
