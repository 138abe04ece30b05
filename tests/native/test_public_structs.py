"""Programs and bindings built for the pinned llama.cpp find its public structs and enums in the patched one.

The compiler describes what the headers declare, in DWARF; readelf prints it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from qlutattn_patch.commands import main
from qlutattn_patch.workspace import Workspace

pytestmark = [pytest.mark.compiler, pytest.mark.core]

FOLDERS = ("include", "ggml/include", "tools/mtmd")
COUNTS = {"ggml_type GGML_TYPE_COUNT", "ggml_op GGML_OP_COUNT"}  # what is appended moves them
# the protocol of rpc names the operations by number
CHANGED = re.compile(r"GGML_TYPE_COUNT|RPC_PROTO_PATCH_VERSION")

DIE = re.compile(r"^ *<(\d+)><[0-9a-f]+>: Abbrev Number: \d+ \((DW_TAG_\w+)\)$")
ATTRIBUTE = re.compile(
    r"^ *<[0-9a-f]+> +DW_AT_(name|byte_size|data_member_location|const_value) *: (?:\(.*\): )?(.*?) *$"
)
RECORDS = {"DW_TAG_structure_type", "DW_TAG_union_type"}


def headers(tree: Path) -> list[Path]:
    """The headers that a program may include."""
    found = [path for folder in FOLDERS for path in sorted((tree / folder).glob("*.h"))]
    return [path for path in found if path.parent.name != "mtmd" or path.name in ("mtmd.h", "mtmd-helper.h")]


def described(tree: Path, to: Path) -> str:
    """What the compiler says of everything that the public headers declare."""
    to.mkdir()
    source, compiled = to / "headers.cpp", to / "headers.o"
    source.write_text("".join(f'#include "{path}"\n' for path in headers(tree)), encoding="utf-8")
    flags = ["-std=c++17", "-gdwarf-4", "-fno-eliminate-unused-debug-types"]
    includes = [f"-I{tree / folder}" for folder in FOLDERS]
    compiler = os.environ.get("CXX", "c++")
    subprocess.run([compiler, *flags, *includes, "-c", source, "-o", compiled], check=True)
    readelf = ["readelf", "--debug-dump=info", compiled]
    return subprocess.run(readelf, capture_output=True, text=True, check=True).stdout


def facts(description: str) -> dict[str, int]:
    """The size of each struct, the offset of each of its members, the value of each enumerator."""
    found: dict[str, int] = {}
    tag, depth, names = "", 0, [""]

    def note(attribute: str, value: str) -> None:
        owner = " ".join(name for name in names[1:depth] if name)
        if attribute == "name":
            names[depth] = value
        elif tag in RECORDS and attribute == "byte_size":
            found[" ".join(name for name in names[1 : depth + 1] if name)] = int(value, 0)
        elif tag == "DW_TAG_member" and attribute == "data_member_location":
            found[f"{owner} .{names[depth]}"] = int(value, 0)
        elif tag == "DW_TAG_enumerator" and attribute == "const_value":
            found[f"{owner} {names[depth]}"] = int(value, 0)

    for line in description.splitlines():
        if die := DIE.match(line):
            depth, tag = int(die[1]), die[2]
            names = [*names[:depth], ""]
        elif attribute := ATTRIBUTE.match(line):
            note(attribute[1], attribute[2])
    return found


@pytest.fixture(scope="module")
def patched() -> Path:
    """The vendored tree, with the patches in it."""
    assert main.run(["apply"]) == 0
    return Workspace.find().tree


@pytest.fixture(scope="module")
def pristine(patched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The headers as they are upstream."""
    folder = tmp_path_factory.mktemp("pristine")
    archive = folder / "headers.tar"
    subprocess.run(["git", "-C", patched, "archive", "-o", archive, "HEAD", *FOLDERS], check=True)
    shutil.unpack_archive(archive, folder / "llama.cpp")
    return folder / "llama.cpp"


@pytest.fixture(scope="module")
def upstreams(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    if not shutil.which("readelf"):
        pytest.skip("readelf, of binutils, prints what the compiler says of the structs")
    return facts(described(pristine, tmp_path_factory.mktemp("upstream") / "a"))


def differences(upstreams: dict[str, int], ours: dict[str, int]) -> list[str]:
    """What a program built for upstream's headers would get wrong."""
    found = [
        f"{name} is {ours.get(name)}, not {value}"
        for name, value in upstreams.items()
        if ours.get(name) != value and not (name in COUNTS and ours.get(name, 0) > value)
    ]
    for name in ours.keys() - upstreams.keys():
        owner, _, member = name.rpartition(" ")
        siblings = {
            value for other, value in upstreams.items() if other.startswith(f"{owner} ") and other not in COUNTS
        }
        if siblings and (member.startswith(".") or ours[name] in siblings):
            found.append(f"{name} is new, and is {ours[name]}")
    return found


def test_every_struct_is_described(pristine: Path, upstreams: dict[str, int]) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in headers(pristine))
    structs = set(re.findall(r"^ *(?:typedef )?struct (\w+) \{", text, re.M))
    assert len(structs) > 40
    assert structs <= {name.rpartition(" ")[2] for name in upstreams}
    assert {"llama_context_params", "llama_model_params", "ggml_tensor", "gguf_init_params"} <= structs
    assert upstreams["llama_context_params .n_ctx"] == 0
    assert upstreams["ggml_type GGML_TYPE_F16"] == 1
    assert upstreams.keys() > COUNTS


def test_structs_and_enums_are_upstreams(patched: Path, upstreams: dict[str, int], tmp_path: Path) -> None:
    ours = facts(described(patched, tmp_path / "a"))
    assert differences(upstreams, ours) == []
    assert all(ours[name] > upstreams[name] for name in COUNTS)  # the patches are in the tree


def test_headers_lose_no_declaration(pristine: Path, patched: Path) -> None:
    for path in headers(pristine):
        name = path.relative_to(pristine)
        lines = [Counter((tree / name).read_text(encoding="utf-8").splitlines()) for tree in (pristine, patched)]
        assert [line for line in lines[0] - lines[1] if not CHANGED.search(line)] == [], name
        assert name.parts[0] == "ggml" or lines[0] == lines[1], f"{name} is upstream's own"


PLANTED = {
    "a member at the end": (
        "include/llama.h",
        "        struct llama_context * ctx_other;\n",
        "        struct llama_context * ctx_other;\n        uint32_t planted;\n",
        "llama_context_params is 168, not 160",
    ),
    "a member in padding": (
        "include/llama.h",
        "        bool kv_unified;  ",
        "        bool planted;\n        bool kv_unified;  ",
        "llama_context_params .planted is new",
    ),
    "a longer array": ("ggml/include/ggml.h", "GGML_MAX_SRC            10", "GGML_MAX_SRC 11", "ggml_tensor .name is"),
    "a member of mtmd's": (
        "tools/mtmd/mtmd.h",
        "    bool use_gpu;\n",
        "    int x;\n    bool use_gpu;\n",
        "mtmd_context",
    ),
    "operations in another order": (
        "ggml/include/ggml.h",
        "GGML_OP_ADD_ID,\n        GGML_OP_ADD1,",
        "GGML_OP_ADD1,\n        GGML_OP_ADD_ID,",
        "ggml_op GGML_OP_ADD1 is 3, not 4",
    ),
    "a number used twice": (
        "ggml/include/ggml.h",
        "GGML_TYPE_COUNT ",
        "GGML_TYPE_X = 1, GGML_TYPE_COUNT ",
        "GGML_TYPE_X is new, and is 1",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_change_is_found(name: str, patched: Path, upstreams: dict[str, int], tmp_path: Path) -> None:
    file, old, new, says = PLANTED[name]
    for folder in FOLDERS:
        shutil.copytree(patched / folder, tmp_path / folder)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (tmp_path / file).write_text(text.replace(old, new), encoding="utf-8")
    assert any(says in found for found in differences(upstreams, facts(described(tmp_path, tmp_path / "a"))))
