"""`templates/formats.toml` is checked, and what follows from it is right."""

from __future__ import annotations

import pytest
from helpers import ROOT

from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.templates.formats import load_formats

FILE = ROOT / "templates" / "formats.toml"


def test_the_eight_types():
    types = load_formats(FILE).types
    assert [(t.name, t.id, t.bits, t.lanes) for t in types] == [
        ("qlutattn_k1_128x128", 48, 1, "token"),
        ("qlutattn_k2_128x128", 49, 2, "token"),
        ("qlutattn_k4_128x128", 50, 4, "token"),
        ("qlutattn_v1_128x128", 51, 1, "channel"),
        ("qlutattn_v2_128x128", 52, 2, "channel"),
        ("qlutattn_v4_128x128", 53, 4, "channel"),
        ("qlutattn_k8_128x128", 54, 8, "token"),
        ("qlutattn_v8_128x128", 55, 8, "channel"),
    ]


@pytest.mark.parametrize(
    ("bits", "tile_bytes", "bpw"), [(1, 2560, 1.25), (2, 4608, 2.25), (4, 8704, 4.25), (8, 16640, 8.125)]
)
def test_sizes(bits, tile_bytes, bpw):
    for found in load_formats(FILE).types:
        if found.bits == bits:
            assert (found.tile_bytes, found.type_size, found.bpw) == (tile_bytes, tile_bytes // 128, bpw)
            assert found.code_bytes == 2048 * bits
            assert found.saving == 1 - bpw / 16


def test_factors_are_the_levels_without_their_divisor():
    books = load_formats(FILE).codebooks
    assert [books[bits].level_factor for bits in (1, 2, 4)] == [64, 12, 2]
    assert books[2].factors == (-10, -3, 3, 10)


def test_the_constant_keeps_the_shape_as_it_is_written():
    assert load_formats(FILE).types[2].enum == "GGML_TYPE_QLUTATTN_K4_128x128"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("id = 49", "id = 48", "the id 48 of 'qlutattn_k2_128x128' is that of 'qlutattn_k1_128x128'"),
        ("id = 48", "id = 42", "'id' must be in 43...255 .lower ids are upstream's., not 42"),
        ("id = 48", "id = 256", "'id' must be in 43...255 .*, not 256"),
        ("id = 48", "id = 0x10000000000000000", "more than 64 bits"),
        ("pack_size = 128", "pack_size = 8192", "a power of two in 8...4096"),
        ("rms_to_scale = 0.7978846", "rms_to_scale = nan", "small positive number"),
        ("levels = [-64, 64]", "levels = [-64, true]", "'levels' at 2 must be an int8 .*, not true"),
        ("levels = [-64, 64]", "levels = [64, -64]", "strictly increasing"),
        ("levels = [-64, 64]", "levels = [-64, 0, 64]", "1-bit codes need 2 levels, not 3"),
        ("levels = [-64, 64]", "levels = [-64, 128]", "must be an int8"),
        ("levels = [-64, 64]", "levels = [-64, 6.5]", "'levels' at 2 must be an int8 .*, not 6.5"),
        ("levels = [-64, 64]", "levels = [-64, 63]", "symmetric"),
        ("levels = [-120, -36, 36, 120]", "levels = [-127, -38, 38, 127]", "reach 127, more than the 15"),
        ('layout = "dot"', 'layout = "row"', "'layout' must be 'dot' or 'lookup', not 'row'"),
        ('kernel = "dot"', 'kernel = "fma"', "'kernel' must be 'dot' or 'lut', not 'fma'"),
        ("[codebook.4]", "[codebook.3]", r"\[codebook\]: unknown key '3' \(known are 1, 2, 4\)"),
        ("bits = 4", "bits = 3", "'bits' must be 1 or 2 or 4 or 8, not 3"),
        (
            "[codebook.4]\nlevels = [-122, -92, -72, -56, -42, -30, -18, -6, 6, 18, 30, 42, 56, 72, 92, 122]\n"
            'rms_to_scale = 1.4050294\nlayout = "dot"\nkernel = "dot"\n',
            "",
            r"there is no \[codebook.4\]",
        ),
        ('side = "k"', 'side = "q"', "'side' must be 'k' or 'v'"),
        ("qlutattn_k2_128x128", "qlutattn_k2_64x64", "the name must be 'qlutattn_k2_128x128'"),
        ("qlutattn_k2_128x128", "Qlutattn", "the name must be"),
        ("pack_size = 128", "pack_size = 100", "power of two"),
        ("level_unit = 64", "level_unit = 0", "'level_unit' must be"),
        ("rms_to_scale = 0.7978846", "rms_to_scale = -1", "from 0.45 on"),
        (
            'metadata = ["scale", "offset"]',
            'metadata = ["scale", "scale"]',
            "'metadata' must be .'scale', 'offset'. or .'scale'., not",
        ),
        ('metadata = ["scale", "offset"]', 'metadata = ["offset", "scale"]', "not .'offset', 'scale'."),
        ("schema = 1", "schema = 1\ncolour = 3", "unknown key 'colour'"),
        ("bits = 4", "bits = 4\nrows = 3", "unknown key 'rows'"),
    ],
)
def test_a_wrong_format_is_told_in_one_sentence(tmp_path, old, new, said):
    text = FILE.read_text()
    assert old in text
    (tmp_path / "formats.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(ExpectedError, match=said) as told:
        load_formats(tmp_path / "formats.toml")
    assert "\n" not in told.value.cause


OTHER = """
[[type]]
name = "qlutattn_k2u_128x128"
id = 56
side = "k"
bits = 2
metadata = ["scale"]
levels = [-96, -32, 32, 96]
rms_to_scale = 0.98
"""


def with_other(folder, old="", new=""):
    assert old in OTHER
    (folder / "formats.toml").write_text(FILE.read_text() + OTHER.replace(old, new, 1))
    return load_formats(folder / "formats.toml")


def test_a_type_may_state_what_its_bits_do_not(tmp_path):
    formats = with_other(tmp_path)
    *before, other = formats.types
    assert tuple(before) == load_formats(FILE).types
    assert (other.label, other.enum, other.levels) == ("k2u", "GGML_TYPE_QLUTATTN_K2U_128x128", (-96, -32, 32, 96))
    assert (other.codebook.factors, other.codebook.level_factor, other.layout) == ((-3, -1, 1, 3), 32, "dot")
    assert (other.has_offset, other.tile_bytes, other.type_size, other.bpw) == (False, 4352, 34, 2.125)
    assert all(found.has_offset == (found.bits < 8) for found in before)
    assert [book.label for book in formats.books] == ["1bit", "2bit", "4bit", "k2u"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rms_to_scale = 0.98\n", "", "must be given together"),
        ("levels = [-96, -32, 32, 96]\n", "", "must be given together"),
        ("rms_to_scale = 0.98", "rms_to_scale = 0.4", "from 0.45 on"),
        ("levels = [-96, -32, 32, 96]", "levels = [-96, 96]", "need 4 levels"),
        ('metadata = ["scale"]', 'metadata = ["offset"]', "'metadata' must be"),
        ("k2u_", "k2U_", "or have letters after the bits"),
        ("k2u_", "v2u_", "the name must be 'qlutattn_k2_128x128'"),
        ("id = 56", "id = 53", "is that of 'qlutattn_v4_128x128'"),
    ],
)
def test_a_wrong_statement_of_a_type_is_told(tmp_path, old, new, said):
    with pytest.raises(ExpectedError, match=said) as told:
        with_other(tmp_path, old, new)
    assert "\n" not in told.value.cause


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ("levels = [-1, 1]\nrms_to_scale = 1.0", "8 bits are their own levels in one order: leave out 'levels'"),
        ('layout = "lookup"', "leave out 'layout'"),
        ('kernel = "lut"', "leave out 'kernel'"),
        ('metadata = ["scale", "offset"]', "'metadata' must be .'scale'. for 8 bits, which have no offsets"),
    ],
)
def test_what_8_bits_cannot_state_is_told(tmp_path, stated, said):
    (tmp_path / "formats.toml").write_text(f"{FILE.read_text()}{stated}\n")
    with pytest.raises(ExpectedError, match=said):
        load_formats(tmp_path / "formats.toml")


def test_levels_that_the_vector_packer_cannot_choose_from_are_told(tmp_path):
    """Of 4 bits, two midpoints within 16 would stop the packer; the table's are further apart."""
    text = FILE.read_text().replace("-30, -18, -6, 6, 18, 30,", "-8, -4, -2, 2, 4, 8,")
    (tmp_path / "formats.toml").write_text(text)
    with pytest.raises(ExpectedError, match="more than one midpoint of two levels lies from -15 to -1"):
        load_formats(tmp_path / "formats.toml")


def test_a_name_used_twice_is_told(tmp_path):
    again = '\n[[type]]\nname = "qlutattn_k1_128x128"\nid = 60\nside = "k"\nbits = 1\n'
    (tmp_path / "formats.toml").write_text(FILE.read_text() + again)
    with pytest.raises(ExpectedError, match="is used twice"):
        load_formats(tmp_path / "formats.toml")
