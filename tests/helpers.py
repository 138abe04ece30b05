"""A small upstream, a small project, and ways to run and to kill what works on them."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from qlutattn_patch.commands import main
from qlutattn_patch.system.git import Repository
from qlutattn_patch.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent

GGML_H = """\
#pragma once
// a header that looks enough like ggml.h

    enum ggml_type {
        GGML_TYPE_F32     = 0,
        // GGML_TYPE_Q4_2 = 48, support has been removed
        GGML_TYPE_F16     = 1,
        GGML_TYPE_Q2_0    = 42,
        GGML_TYPE_COUNT   = 43,
    };

int ggml_first(void);
int ggml_second(void);
int ggml_third(void);
"""
GGML_C = """\
#include "ggml.h"

static const char * names[] = {
    [GGML_TYPE_F32] = { .type_name = "f32" },
    [GGML_TYPE_F16] = { .type_name = "f16" },
};

int ggml_first(void) {
    return 1;
}

int ggml_second(void) {
    return 2;
}

int ggml_third(void) {
    return 3;
}
"""
UPSTREAM = {
    "CMakeLists.txt": "project(llama.cpp)\nadd_subdirectory(ggml)\n",
    ".gitignore": "/build*\n*.o\n",
    "LICENSE": "MIT\n",
    "ggml/include/ggml.h": GGML_H,
    "ggml/src/ggml.c": GGML_C,
    "docs/Größe und Maß.md": "A name with spaces and more.\n",
    "scripts/run me.sh": "#!/bin/sh\n",
}
TYPES_TOML = '''\
subject = "ggml: add the types"
why = """The tables
  need them."""
not_a_new_file = "An enum can only grow where it is."
until = "Types can be registered."
overlay = ["ggml/src/qlutattn/traits.inc", "ggml/src/qlutattn/qlutattn.c"]

[[hook]]
file = "ggml/include/ggml.h"
anchor = """
        GGML_TYPE_COUNT   = 43,
"""
place = "replace"
text = """
{% for t in types %}
        {{ t.enum }} = {{ t.id }},
{% endfor %}
        GGML_TYPE_COUNT   = {{ types[-1].id + 1 }},
"""

[[hook]]
file = "ggml/src/ggml.c"
anchor = "#include \\"ggml.h\\"\\n"
place = "after"
text = "#include \\"qlutattn/traits.inc\\"\\n"
'''
ALIGN_TOML = """\
subject = "tools: add the proof"
why = "It must be proven."
not_a_new_file = "CMake must know it."
until = "Never."
overlay = ["tools/prüf stand/main.c", "tools/prüf stand/run.sh"]

[[hook]]
file = "CMakeLists.txt"
anchor = "add_subdirectory(ggml)\\n"
place = "after"
text = "add_subdirectory(tools)\\n"

[[hook]]
file = "ggml/src/ggml.c"
anchor = "    return 3;\\n"
place = "before"
text = "    // third\\n"
"""
OVERLAY = {
    "ggml/src/qlutattn/traits.inc.j2": "{% for t in types %}\n{{ t.name }} {{ t.type_size }}\n{% endfor %}\n",
    "ggml/src/qlutattn/qlutattn.c": "int qlutattn(void) { return {{ 0 }}; }\n",
    "tools/prüf stand/main.c": "int main(void) { return 0; }\n",
    "tools/prüf stand/run.sh": "#!/bin/sh\n./align\n",
}
FORMATS_MD = """\
# The tile

<!-- types:begin (generated) -->
<!-- types:end -->
<!-- levels:begin -->
<!-- levels:end -->

## More
"""


@dataclass(frozen=True)
class Project:
    """A project, its upstream repository, and the tree that it works on."""

    workspace: Workspace
    upstream: Path

    @property
    def root(self) -> Path:
        return self.workspace.root

    @property
    def tree(self) -> Path:
        return self.workspace.tree

    @property
    def repository(self) -> Repository:
        return Repository.open(self.tree)


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        if text.startswith("#!"):
            path.chmod(0o755)


def git(folder: Path, *args: str, check: bool = True) -> str:
    """Run git as a user would, with none of this machine's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    plain = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "GIT_AUTHOR_NAME": "Ä",
        "GIT_AUTHOR_EMAIL": "a@localhost",
        "GIT_COMMITTER_NAME": "Ä",
        "GIT_COMMITTER_EMAIL": "a@localhost",
    }
    done = subprocess.run(["git", *args], cwd=folder, env=kept | plain, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_upstream(folder: Path, files: dict[str, str] | None = None, alone: bool = False) -> Path:
    """A git checkout of the small upstream, with other files beside its own or (`alone`) in their place."""
    write_files(folder, (files or {}) if alone else UPSTREAM | (files or {}))
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "upstream")
    return folder


def make_project(folder: Path, upstream_files: dict[str, str] | None = None) -> Project:
    """A project inside a git repository of its own, whose tree is a copy of the small upstream at the pin."""
    hooks = {"series": "# in order\ntypes\nalign\n", "types.toml": TYPES_TOML, "align.toml": ALIGN_TOML}
    return assemble(folder, make_upstream(folder / "up stream", upstream_files), OVERLAY, hooks)


def assemble(folder: Path, upstream: Path, overlay: dict[str, str], hooks: dict[str, str]) -> Project:
    """A project with these templates, beside this upstream."""
    root = folder / "projekt ü"
    write_files(root / "templates" / "overlay", overlay)
    write_files(root / "templates" / "hooks", hooks)
    write_files(root / "docs", {"formats.md": FORMATS_MD})
    shutil.copy(ROOT / "templates" / "formats.toml", root / "templates")
    git(root, "init", "--quiet")
    write_pin(root, upstream)
    shutil.copytree(upstream, root / "vendor" / "llama.cpp", symlinks=True)
    return Project(Workspace(root, root / "vendor" / "llama.cpp"), upstream)


def write_pin(root: Path, upstream: Path, sources: str = "") -> None:
    """Pin the commit at HEAD of an upstream."""
    commit, tree = git(upstream, "rev-parse", "HEAD"), git(upstream, "rev-parse", "HEAD^{tree}")
    sources = sources or f'[[source]]\nkind = "git"\nurl = "{upstream.as_uri()}"\n'
    write_files(
        root / "vendor",
        {"llama.cpp.toml": f'schema = 1\ncommit = "{commit}"\ntree = "{tree}"\n\n{sources}'},
    )


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that must be there."""
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


def snapshot(folder: Path) -> dict[str, tuple[bytes, bool]]:
    """Every file of a work tree: contents and whether it can be executed. Empty folders count as well."""
    found: dict[str, tuple[bytes, bool]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name == ".git" or name.startswith(".git/"):
            continue
        if path.is_dir():
            if not any(path.iterdir()):
                found[name + "/"] = (b"", False)
        else:
            data = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
            found[name] = (data, os.access(path, os.X_OK))
    return found


def make_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo], executable: tuple[str, ...] = ()) -> Path:
    """A tar archive; a member is its contents, or a ready header of something odd."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, what in members.items():
            if isinstance(what, tarfile.TarInfo):
                tar.addfile(what)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(what)
            info.mode = 0o755 if name.endswith(executable or ("\0",)) else 0o644
            tar.addfile(info, io.BytesIO(what))
    return path


def upstream_tar(path: Path, prefix: str = "llama.cpp-1") -> Path:
    """The small upstream as a source archive."""
    return make_tar(path, {f"{prefix}/{name}": text.encode() for name, text in UPSTREAM.items()}, (".sh",))


def killed_at(count: int, below: Path, work: Callable[[], object]) -> bool:
    """Do work in a child process that is killed just before its `count`-th step on disk; False if it had fewer.

    A step is anything below `below` that is opened for writing, renamed, removed or made, and any fsync.
    """
    child = os.fork()
    if child == 0:
        try:
            _kill_before_step(count, str(below))
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the child ended with {status}"
    return status == signal.SIGKILL


def _kill_before_step(count: int, below: str) -> None:
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and str(path).startswith(below):
                step()
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod") and str(args[0]).startswith(below):
            step()

    fsync = os.fsync

    def counted_fsync(descriptor: int) -> None:
        step()
        fsync(descriptor)

    os.fsync = counted_fsync
    sys.addaudithook(audit)


def together(*works: Callable[[], object]) -> list[int]:
    """Do several things at the same time, each in a process of its own; returns their exit codes (0 or 99)."""
    children = []
    for work in works:
        child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(99)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def parsed(argv: list[str]) -> click.Context:
    """What click makes of a command line, without running it."""
    context = main.group.make_context("qlutattn", argv)
    name, command, rest = main.group.resolve_command(context, [*context._protected_args, *context.args])
    assert command is not None
    return command.make_context(name, rest, parent=context)
