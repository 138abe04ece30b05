"""What the README states as a number is what the code gives. tests/program/test_docs.py runs its commands."""

from __future__ import annotations

import re

from helpers import ROOT

from qlutattn_patch.templates.formats import load_formats

UPSTREAMS = (ROOT / "docs" / "upstreams.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_sizes_are_those_of_the_types() -> None:
    rows = re.findall(r"\| `(\w+)`, `(\w+)` \| token, channel \| ([\d.]+) \| ([\d.]+) % \| (\d+) MiB \|", README)
    types = {kind.name: kind for kind in load_formats(ROOT / "templates" / "formats.toml").types}
    assert len(rows) * 2 == len(types)
    values = 2 * 32 * 8 * 128 * 32768
    for k, v, bpw, saving, size in rows:
        for kind in (types[k], types[v]):
            assert float(bpw) == kind.bpw
            assert float(saving) == round(100 * (1 - kind.bpw / 16), 1)
            assert int(size) == values * kind.bpw / 8 / 2**20


def test_the_patches_are_as_generated() -> None:
    stated = re.search(r"(\d+) patches change (\d+) lines of (\d+) upstream files", README)
    assert stated
    text = (ROOT / "docs" / "patches.md").read_text(encoding="utf-8")
    listed = re.search(
        r"The series has (\d+) patches.*\nTogether they change (\d+) lines of (\d+) upstream files", text
    )
    assert listed
    assert stated.groups() == listed.groups()


def test_the_matrix_passes_on_eight_releases() -> None:
    assert "the last eight releases of llama-cpp-python" in README
    table = re.search(r"```text\n(upstream  llama\.cpp .*?)```", UPSTREAMS, re.S)
    assert table
    *rows, verdict = [line.split() for line in table[1].splitlines()[1:]]
    assert len({row[0] for row in rows}) == 8
    assert all(row[2:7] == ["ok"] * 5 for row in rows)
    assert verdict[:4] == ["PASS", "8", "of", "8"]


def test_the_measurements_are_those_of_the_pages() -> None:
    """The speeds and divergences of the README, found in the tables of the pages that it names."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    speeds = page.split("## Prefill")[0]
    decode = re.findall(r"^\| decode, (\d+) keys \| 1 \|(.*)\|$", README, re.M)
    assert len(decode) == 2
    for keys, row in decode:
        (cells,) = re.findall(rf"^\| \*?\*?{keys}\*?\*? \| \*?\*?2\*?\*? \|(.*)\|$", speeds, re.M)
        measured = re.findall(r"([\d.]+) ×", cells)  # K8V8, K4V4, K4V2, K2V2, K1V1, K4V4+w512, q8_0, q4_0
        assert re.findall(r"[\d.]+", row) == [*measured[-2:], *measured[:5]]
    plain = page.split("## With AVX2")[1].split("## With AVX-512")[0]
    for work in ("decode, 8192 keys", "prefill, 8192 keys"):
        (cells,) = re.findall(rf"^\| {work} \| [\d.]+ \|(.*)\|$", plain, re.M)
        stated = work.replace("prefill", "prefill, 512 queries")
        row = re.findall(rf"^\| (?:the same with AVX2 alone: )?{stated} \| 1 \|(.*)\|$", README, re.M)[-1]
        assert re.findall(r"[\d.]+", row) == re.findall(r"([\d.]+) ×", cells)[:5]
    quality = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"^\| \| (q8_0 .*) \|$", README, re.M)
    (values,) = re.findall(r"^\| mean KL divergence from f16 \| (.*) \|$", README, re.M)
    for name, value in zip(named.split(" | "), values.split(" | "), strict=True):
        label = name.split("`")[1] if "`" in name else name
        first = re.search(rf"^\| `{label}` \|.*?\| ([.\d]+) ±", quality, re.M)
        assert first, label
        assert first[1] == value, label


def test_the_sizes_with_window_and_sink_are_those_of_the_slots_that_they_name() -> None:
    """f16 cells: sequences × (sink + window + a tile) + ubatch; docs/kv-cache.md, "Memory layout"."""
    stated = re.search(
        r"in one slot \(`-np 1`\) take ([\d.]+) % of f16 with K4V4 and ([\d.]+) % with K2V2; "
        r"shared by four slots, which is llama-server's default, ([\d.]+) % and ([\d.]+) %\.",
        README,
    )
    assert stated
    bpw = {kind.label: kind.bpw for kind in load_formats(ROOT / "templates" / "formats.toml").types}
    expected = [
        round(100 * ((slots * (128 + 256 + 128) + 512) / 32768 + bits / 16), 1)
        for slots in (1, 4)
        for bits in (bpw["k4"], bpw["k2"])
    ]
    assert [float(share) for share in stated.groups()] == expected
