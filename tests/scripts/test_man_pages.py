"""Manual pages say what the help says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import man_pages
import pytest

from qlutattn_patch.commands import main

PAGES = man_pages.pages()


def test_each_command_has_a_page_with_all_its_options() -> None:
    assert set(PAGES) == {"qlutattn.1", *(f"qlutattn-{name}.1" for name in main.COMMANDS)}
    for name in main.COMMANDS:
        command = main.group.get_command(main.click.Context(main.group), name)
        assert command is not None
        plain = PAGES[f"qlutattn-{name}.1"].replace("\\-", "-")
        for option in (text for param in command.params for text in param.opts if text.startswith("--")):
            assert option in plain, f"{name}: {option}"
        assert ".SH EXAMPLES" in plain


@pytest.mark.parametrize("name", PAGES)
def test_nothing_but_macros_begins_with_a_dot(name: str) -> None:
    macros = {line.split()[0] for line in PAGES[name].splitlines() if line.startswith((".", "'"))}
    assert macros <= {".TH", ".SH", ".nf", ".fi"}


def test_man_can_show_a_page(tmp_path: Path) -> None:
    viewer = shutil.which("groff") or shutil.which("man")
    if viewer is None:
        pytest.skip("there is neither groff nor man here")
    path = tmp_path / "qlutattn-build.1"
    path.write_text(PAGES[path.name], encoding="utf-8")
    argv = [viewer, "-l", path] if viewer.endswith("man") else [viewer, "-man", "-Tutf8", "-ww", path]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    shown = re.sub(r"\x1b\[[\d;]*m|.\x08", "", done.stdout)
    assert "--preset" in shown
