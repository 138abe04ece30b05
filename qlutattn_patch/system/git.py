"""git plumbing, independent of the project.

Every call names its git directory, so git never walks up into another repository, and runs without the
caller's GIT_* variables. A `Repository` is a user's work tree with the user's settings; a scratch
repository is bare, sees only its own settings, and is removed afterwards.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qlutattn_patch.system import console, interrupts
from qlutattn_patch.system.errors import ExpectedError
from qlutattn_patch.system.files import write

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # a missing git is reported when it is first needed
import git as gitpython
import git.exc as gitpython_exc

# The user's network settings for git are kept; every other GIT_* variable could redirect a command.
_KEPT = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", "GIT_ASKPASS", "GIT_PROXY_COMMAND", "GIT_EXEC_PATH")
_KEPT_PREFIXES = ("GIT_SSL_", "GIT_HTTP_", "GIT_TRACE", "GIT_PYTHON_")

# The identity and date of every commit, so that the same files give the same commit on every machine.
IDENTITY = "qlutattn"
MAIL = "qlutattn@localhost"
DATE = "2025-01-01T00:00:00+0000"

_FORMAT_PATCH = (
    *("--stdout", "--zero-commit", "--full-index", "--no-signature", "--no-stat", "--no-renames", "-U3", "--root"),
    *("--diff-algorithm=myers", "--no-indent-heuristic", "--no-ext-diff", "--no-textconv", "--no-color"),
)
_PLAIN = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": IDENTITY,
    "GIT_AUTHOR_EMAIL": MAIL,
    "GIT_AUTHOR_DATE": DATE,
    "GIT_COMMITTER_NAME": IDENTITY,
    "GIT_COMMITTER_EMAIL": MAIL,
    "GIT_COMMITTER_DATE": DATE,
}
_SETTINGS = {"core.autocrlf": "false", "core.safecrlf": "false", "gc.auto": "0"}
_ALWAYS = {"LC_ALL": "C", "TZ": "UTC", "GIT_TERMINAL_PROMPT": "0", "GIT_PAGER": "cat", "GIT_OPTIONAL_LOCKS": "0"}


_FSCK = "fix what git reports, then run the same command again; git fsck checks the repository"


class GitError(ExpectedError):
    """A git command that failed; `stderr` is its output."""

    def __init__(self, args: Sequence[str], stderr: str) -> None:
        lines = [line for line in stderr.strip().splitlines() if line.strip()] or ["no message"]
        super().__init__(f"git {args[0]} failed: {lines[-1]}", _FSCK)
        self.stderr = stderr


@dataclass(frozen=True)
class Entry:
    """A file of a tree: its mode (octal, as git writes it) and the id of its contents."""

    mode: str
    blob: str


@dataclass(frozen=True)
class Output:
    """The result of a git command."""

    status: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True)
class Repository:
    """A git directory and its work tree (None: bare)."""

    git_dir: Path
    work_tree: Path | None = None
    plain: bool = False  # without the user's and the machine's settings, and with the fixed identity

    @classmethod
    def open(cls, folder: Path) -> Repository:
        """The repository whose work tree starts exactly at `folder`."""
        folder = folder.absolute()
        if not folder.is_dir():
            raise ExpectedError(f"There is no folder {folder}.", "name a git checkout")
        entry = folder / ".git"
        git_dir = entry
        if entry.is_file():  # a linked work tree or a submodule
            line = entry.read_text(encoding="utf-8", errors="replace").strip()
            git_dir = (folder / line.removeprefix("gitdir:").strip()).resolve()
        if not (git_dir / "HEAD").is_file():
            raise ExpectedError(f"{folder} is not the top of a git work tree (it has no .git).", "name a git checkout")
        return cls(git_dir, folder)

    @classmethod
    def create(cls, git_dir: Path, work_tree: Path | None = None, sha256: bool = False) -> Repository:
        """Create an empty repository that is independent of the user's settings."""
        repository = cls(git_dir, work_tree, plain=True)
        object_format = f"--object-format={'sha256' if sha256 else 'sha1'}"
        repository.run("init", "--quiet", "--template=", "--initial-branch=base", object_format)
        return repository

    def keep_settings(self) -> None:
        """Configure the repository, also for later users, to keep files byte for byte."""
        for key, value in _SETTINGS.items():
            self.run("config", key, value)

    # --- running

    def call(self, *args: str, stdin: bytes | None = None) -> Output:
        """Run a git command and return its result, whatever its status."""
        command = ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", f"--git-dir={self.git_dir}"]
        if self.plain:
            command += [word for key, value in _SETTINGS.items() for word in ("-c", f"{key}={value}")]
        if self.work_tree is not None:
            command.append(f"--work-tree={self.work_tree}")
        folder = self.work_tree or self.git_dir
        return _execute([*command, *args], folder if folder.is_dir() else folder.parent, self.plain, stdin)

    def run(self, *args: str, stdin: bytes | None = None) -> bytes:
        """Run a git command that must succeed and return its output."""
        output = self.call(*args, stdin=stdin)
        if output.status:
            raise GitError(args, output.stderr)
        return output.stdout

    def line(self, *args: str, stdin: bytes | None = None) -> str:
        """Run a git command that must succeed and return its output as one line of text."""
        return self.run(*args, stdin=stdin).decode("utf-8", "surrogateescape").strip()

    # --- objects

    def commit_id(self, revision: str = "HEAD") -> str | None:
        """The full id of a commit, or None if the repository does not have it."""
        output = self.call("rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}")
        return output.stdout.decode().strip() if output.status == 0 else None

    def tree_id(self, revision: str = "HEAD") -> str:
        """The id of a revision's tree."""
        return self.line("rev-parse", "--verify", f"{revision}^{{tree}}")

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether a commit equals another one or is its ancestor."""
        return self.call("merge-base", "--is-ancestor", older, newer).status == 0

    def first_parents(self, after: str, last: str) -> list[str]:
        """The commits after one up to another along first parents, oldest first."""
        return self.line("rev-list", "--first-parent", "--reverse", f"{after}..{last}").split()

    def has(self, name: str) -> bool:
        """Whether the repository has an object."""
        return self.call("cat-file", "-e", name).status == 0

    def files(self, tree: str) -> dict[str, Entry]:
        """Every file of a tree, by path."""
        found: dict[str, Entry] = {}
        for record in _records(self.run("ls-tree", "-r", "-z", "--full-tree", tree)):
            head, path = record.split("\t", 1)
            mode, _, blob = head.split(" ")
            found[path] = Entry(mode, blob)
        return found

    def blobs(self, ids: Iterable[str]) -> dict[str, bytes]:
        """The contents of blobs, by id."""
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return {}
        data = self.run("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in wanted).encode())
        found, at = {}, 0
        for blob in wanted:
            end = data.index(b"\n", at)
            head = data[at:end].split(b" ")
            if len(head) != 3:
                raise ExpectedError(f"The repository {self.git_dir} lacks the object {blob}.", _FSCK)
            at = end + 1 + int(head[2])
            found[blob] = data[end + 1 : at]
            at += 1
        return found

    def differences(self, old: str, new: str) -> dict[str, Entry | None]:
        """The files in which two trees differ: the entry in the new one, or None."""
        fields = _records(self.run("diff-tree", "-r", "-z", "--no-renames", "--raw", old, new))
        found: dict[str, Entry | None] = {}
        for meta, path in zip(fields[::2], fields[1::2], strict=True):
            _, mode, _, blob, kind = meta.split(" ")
            found[path] = None if kind == "D" else Entry(mode, blob)
        return found

    def store(self, contents: Iterable[bytes]) -> list[str]:
        """Store contents as blobs and return their ids."""
        with tempfile.TemporaryDirectory(prefix="qlutattn-") as folder:
            paths = []
            for number, data in enumerate(contents):
                paths.append(Path(folder) / str(number))
                write(paths[-1], data)
            names = "".join(f"{path}\n" for path in paths)
            return self.line("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=os.fsencode(names)).split()

    # --- the index and the work tree

    def read_tree(self, tree: str) -> None:
        """Set the index to a tree; the work tree stays."""
        self.run("read-tree", tree)

    def update_index(self, entries: Mapping[str, Entry]) -> None:
        """Put files into the index."""
        lines = "".join(f"{entry.mode} {entry.blob}\t{path}\0" for path, entry in entries.items())
        self.run("update-index", "-z", "--index-info", stdin=lines.encode("utf-8", "surrogateescape"))

    def write_tree(self) -> str:
        """Store the index as a tree and return its id."""
        return self.line("write-tree")

    def commit_tree(self, tree: str, message: str, parent: str | None = None) -> str:
        """Make a commit of a tree and return its id; no branch moves."""
        return self.line("commit-tree", tree, *(("-p", parent) if parent else ()), stdin=message.encode())

    def apply(self, patch: bytes, check: bool = False) -> Output:
        """Apply a patch to the index as `git am` would, or (`check`) only test whether it applies."""
        return self.call("apply", "--cached", "--whitespace=nowarn", *(("--check",) if check else ()), stdin=patch)

    def format_patch(self, commit: str) -> bytes:
        """A commit as a `git am`-able patch: the same bytes on every machine."""
        return self.run("format-patch", *_FORMAT_PATCH, "-1", commit)

    def work_tree_hashes(self, paths: Iterable[str]) -> dict[str, str | None]:
        """The blob id of each file of the work tree as git would store it, or None without such a file."""
        assert self.work_tree is not None
        wanted = list(paths)
        # names with a line break cannot be passed this way; no patched file has one
        there = [path for path in wanted if is_plain_file(self.work_tree, path) and "\n" not in path]
        found: dict[str, str | None] = dict.fromkeys(wanted)
        if there:
            names = "".join(f"{path}\n" for path in there).encode("utf-8", "surrogateescape")
            found.update(zip(there, self.line("hash-object", "--stdin-paths", stdin=names).split("\n"), strict=True))
        return found

    def changed(self) -> dict[str, str]:
        """Every file in which index or work tree differ from HEAD, with git's two status letters."""
        arguments = ("--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=none")
        return {record[3:]: record[:2] for record in _records(self.run("status", *arguments))}

    def fetch(self, source: str, commit: str) -> None:
        """Fetch one commit, without its history, from another repository."""
        self.run("fetch", "--quiet", "--depth=1", "--no-tags", source, commit)

    # --- scratch

    @contextmanager
    def scratch(self) -> Iterator[Repository]:
        """A temporary bare repository that sees this one's objects and stores new ones."""
        ours = Path(self.line("rev-parse", "--git-path", "objects"))
        base = self.work_tree or self.git_dir
        with tempfile.TemporaryDirectory(prefix="qlutattn-") as folder:
            made = Repository.create(Path(folder) / "scratch.git", sha256=len(self.tree_id()) == 64)
            alternates = made.git_dir / "objects" / "info" / "alternates"
            alternates.parent.mkdir(parents=True, exist_ok=True)
            write(alternates, os.fsencode(base / ours) + b"\n")
            yield made


def is_plain_file(top: Path, path: str) -> bool:
    """Whether a path below `top` is a regular file, and not reached through a link."""
    found = top / path
    return found.is_file() and not found.is_symlink()


def _records(data: bytes) -> list[str]:
    """The NUL-terminated records that git writes with -z."""
    return data.decode("utf-8", "surrogateescape").split("\0")[:-1]


def _execute(command: list[str], folder: Path, plain: bool, stdin: bytes | None) -> Output:
    ceiling = {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    environment = {**_ALWAYS, **ceiling, **(_PLAIN if plain else {})}
    console.ran(command, folder)
    with tempfile.TemporaryFile() as source, _without_git_variables():
        source.write(stdin or b"")
        source.seek(0)
        running = None
        try:
            with interrupts.deferred():
                running = gitpython.Git(folder).execute(command, istream=source, env=environment, as_process=True)
            stdout, stderr = running.communicate()
        except gitpython_exc.GitCommandNotFound:
            raise ExpectedError("The program 'git' is not on PATH.", "install git") from None
        except BaseException:
            # an interrupt of this process alone must not leave git running
            if running is not None:
                running.terminate()
                running.communicate()
            raise
        status = running.returncode
    return Output(status, stdout, stderr.decode("utf-8", "replace").rstrip("\n"))


@contextmanager
def _without_git_variables() -> Iterator[None]:
    """Hide the caller's GIT_* variables, which a hook or an alias sets for its own repository."""
    hidden = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("GIT_") and name not in _KEPT and not name.startswith(_KEPT_PREFIXES)
    }
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
