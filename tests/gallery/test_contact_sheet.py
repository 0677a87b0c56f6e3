"""Contact sheets: every image in its cell, every label on its edge, whatever its length and script."""

from __future__ import annotations

import pytest
from gallery_folder import line, picture, write
from PIL import Image, ImageChops

from wavespeed_qwen_async.bulk.gallery import make_contact_sheets
from wavespeed_qwen_async.bulk.gallery._lettering import width_of, wrap
from wavespeed_qwen_async.bulk.gallery._sheet import Sheet, SheetAxis, SheetCell, draw_sheets
from wavespeed_qwen_async.bulk.sweep import Sweep

COLOURS = [(200 - 40 * row, 60 + 40 * column, 30 + 50 * row) for row in range(3) for column in range(4)]
ROWS = SheetAxis("LoRA", ("owner/ink", "owner/oil", "no LoRA"))
COLUMNS = SheetAxis("Scale", ("0.2", "0.5", "0.8", "1.0"))


@pytest.fixture
def cell(tmp_path):
    (tmp_path / "cells").mkdir()
    for number, colour in enumerate(COLOURS):
        picture(tmp_path / "cells" / f"{number}.png", colour, (64, 64))

    def find(at):
        *_, row, column = at
        return SheetCell(tmp_path / "cells" / f"{(row * 4 + column) % 12}.png")

    return find


def drawn(folder, **parts):
    paths = draw_sheets(folder, Sheet(**({"title": "a red fox", "side": 100} | parts)))
    return [Image.open(path).copy() for path in paths]


def colours_of(image):
    """The colours of the cells, line by line from left to right, where they stand."""
    found = {}
    pixels = image.load()
    for y in range(0, image.height, 4):
        for x in range(0, image.width, 4):
            if pixels[x, y] in COLOURS:
                found.setdefault(pixels[x, y], (y // 40, x))
    return [colour for colour, _ in sorted(found.items(), key=lambda item: item[1])]


def box_of_difference(one, other):
    return ImageChops.difference(one, other).getbbox()


def test_every_image_is_in_its_cell(tmp_path, cell):
    (image,) = drawn(tmp_path, rows=ROWS, columns=COLUMNS, cell=cell)
    assert colours_of(image) == COLOURS
    assert [path.name for path in tmp_path.glob("*.png")] == ["contact-sheet.png"]


@pytest.mark.parametrize("place", range(3))
def test_a_rows_label_is_beside_its_row(tmp_path, cell, place):
    labels = list(ROWS.labels)
    (one,) = drawn(tmp_path, rows=ROWS, columns=COLUMNS, cell=cell)
    labels[place] = labels[place].replace("o", "a")
    (other,) = drawn(tmp_path, rows=SheetAxis("LoRA", tuple(labels)), columns=COLUMNS, cell=cell)
    left, top, right, bottom = box_of_difference(one, other)
    pixels = one.load()
    first = next(x for x in range(one.width) if pixels[x, (top + bottom) // 2] in COLOURS)
    assert right <= first
    assert pixels[first + 2, (top + bottom) // 2] == COLOURS[place * 4]
    assert left >= 30


@pytest.mark.parametrize("place", range(4))
def test_a_columns_label_is_above_its_column(tmp_path, cell, place):
    labels = list(COLUMNS.labels)
    labels[place] = labels[place].replace(".", ":")
    (one,) = drawn(tmp_path, rows=ROWS, columns=COLUMNS, cell=cell)
    (other,) = drawn(tmp_path, rows=ROWS, columns=SheetAxis("Scale", tuple(labels)), cell=cell)
    left, _, right, bottom = box_of_difference(one, other)
    pixels = one.load()
    below = next(
        pixels[(left + right) // 2, y] for y in range(bottom, one.height) if pixels[(left + right) // 2, y] in COLOURS
    )
    assert below == COLOURS[place]


@pytest.mark.parametrize("part", ["title", "notes", "page", "row name", "column name"])
def test_every_other_text_is_drawn(tmp_path, cell, part):
    def sheet(text):
        axes = {name: text if part == name else "Same" for name in ("page", "row name", "column name")}
        return drawn(
            tmp_path,
            title=text if part == "title" else "Same",
            notes=text if part == "notes" else "Same",
            pages=(SheetAxis(axes["page"], ("7",)),),
            rows=SheetAxis(axes["row name"], ROWS.labels),
            columns=SheetAxis(axes["column name"], COLUMNS.labels),
            cell=cell,
        )[0]

    assert box_of_difference(sheet("Same"), sheet("Some")) is not None


def test_each_combination_of_further_axes_is_a_page(tmp_path, cell):
    seen = []

    def noting(at):
        seen.append(at[:2])
        return cell(at)

    pages = (SheetAxis("Seed", ("1", "2")), SheetAxis("Size", ("a", "b", "c")))
    images = drawn(tmp_path, pages=pages, rows=ROWS, columns=COLUMNS, cell=noting)
    assert len(images) == 6
    assert set(seen) == {(seed, size) for seed in range(2) for size in range(3)}
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        f"contact-sheet-{number}.png" for number in range(1, 7)
    ]
    assert all(box_of_difference(images[0], other) for other in images[1:])


def test_pages_of_an_earlier_sheet_are_removed_and_nothing_else(tmp_path, cell):
    (tmp_path / "contact-sheet-old.png").write_bytes(b"mine")
    drawn(tmp_path, pages=(SheetAxis("Seed", ("1", "2")),), cell=cell)
    drawn(tmp_path, cell=cell)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["contact-sheet-old.png", "contact-sheet.png"]


def test_one_axis_is_set_line_under_line(tmp_path, cell):
    many = SheetAxis("Prompt", tuple(f"fox {number}" for number in range(12)))
    (image,) = drawn(tmp_path, columns=many, cell=cell)
    assert colours_of(image) == COLOURS
    assert image.width < 900


def test_more_than_a_page_holds_goes_on_the_next(tmp_path, cell):
    long = SheetAxis("Seed", tuple(str(number) for number in range(30)))
    images = drawn(tmp_path, rows=long, columns=COLUMNS, cell=cell)
    assert len(images) == 3
    assert images[2].height < images[0].height


def test_a_cell_without_an_image_says_why(tmp_path, cell):
    (image,) = drawn(tmp_path, cell=lambda _: SheetCell(None, "refused by the moderation"))
    (other,) = drawn(tmp_path, cell=lambda _: SheetCell(None, "not made yet"))
    assert box_of_difference(image, other) is not None
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    drawn(tmp_path, cell=lambda _: SheetCell(tmp_path / "broken.png"))


def test_cells_have_the_images_shape_and_images_are_not_distorted(tmp_path):
    picture(tmp_path / "wide.png", (1, 2, 3), (200, 100))
    (image,) = drawn(tmp_path, shape=2.0, cell=lambda _: SheetCell(tmp_path / "wide.png"))
    counted = sum(1 for pixel in image.get_flattened_data() if pixel == (1, 2, 3))
    assert counted == pytest.approx(100 * 50, rel=0.02)


def test_sources_of_one_name_are_told_apart_by_their_place(tmp_path):
    sweep = Sweep(prompt="snow", image=[tmp_path / "a" / "fox.png", tmp_path / "b" / "fox.png"], seed=5)
    inputs = {"prompt": "snow", "seed": 5, "local_images": ["fox.png"]}
    for index, colour in enumerate(COLOURS[:2]):
        picture(tmp_path / f"{index}.png", colour)
    write(tmp_path, [line(1 - at, model="edit-lora", inputs=inputs, file=f"{1 - at}.png") for at in range(2)])
    (page,) = make_contact_sheets(sweep, tmp_path, side=100)
    with Image.open(page) as image:
        assert colours_of(image) == COLOURS[:2]


def test_long_labels_are_wrapped_into_the_margin(tmp_path, cell):
    long = "studio/a-very-long-name-of-a-lora-for-oil-painting-in-the-dutch-manner-of-the-golden-age"
    (image,) = drawn(tmp_path, rows=SheetAxis("LoRA", (long, "b", "c")), columns=COLUMNS, cell=cell)
    assert colours_of(image) == COLOURS
    assert image.width < 900


# --- text -------------------------------------------------------------------------------------------------------------

TEXTS = [
    "a red fox looks back in the snow, ink wash, wide margins of blank paper",
    "一只红狐狸在雪地里回头张望\uff0c水墨画\uff0c大片留白。",
    "https://example.com/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "mixed 中文 and English 文字, together",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("width", [60, 150, 400])
def test_lines_are_as_wide_as_the_room_and_nothing_is_lost(text, width):
    lines = wrap(text, 20, width, 99)
    assert all(width_of(line, 20) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("text", TEXTS)
def test_what_does_not_fit_ends_in_an_ellipsis(text):
    lines = wrap(text, 20, 150, 2)
    assert len(lines) == 2
    assert lines[1].endswith("\u2026")
    assert width_of(lines[1], 20) <= 150


def test_no_line_begins_with_a_comma():
    for width in range(60, 400, 10):
        assert not any(line[0] in "\uff0c。" for line in wrap(TEXTS[1], 20, width, 99))


def test_words_stay_whole_where_they_fit():
    assert wrap("red foxes", 20, width_of("red foxes", 20) - 1, 9) == ["red", "foxes"]


def test_characters_that_no_font_has_are_boxes_and_line_ends_are_spaces():
    assert wrap("fox \U0001f98a\n\x07!", 20, 500, 1) == ["fox \u25a1 \u25a1!"]


def test_chinese_has_letters_of_its_own():
    assert width_of("狐", 100) == pytest.approx(100, abs=5)
    assert width_of("i", 100) < 40
