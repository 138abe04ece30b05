"""status names the state of the tree and every link that is stale, and changes nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from helpers import ROOT, edit, git, killed_at, snapshot, write_pin
from status_helpers import GCC, put_build, put_results

from qlutattn_patch.building import results
from qlutattn_patch.building.stamp import Stamp, read_stamp
from qlutattn_patch.commands import main
from qlutattn_patch.patches.generate import generate
from qlutattn_patch.patches.series import load_series
from qlutattn_patch.system import cpu
from qlutattn_patch.tree.worktree import apply, revert
from qlutattn_patch.workflow import status as status_module
from qlutattn_patch.workflow.status import read_status
from qlutattn_patch.workspace import Workspace


def stale(project):
    """Every stale link: its name, and why with what fixes it."""
    before = snapshot(project.root)
    found = {item.link: (item.why, item.next) for item in read_status(project.workspace).stale}
    assert snapshot(project.root) == before
    return found


def state(project):
    before = snapshot(project.root)
    status = read_status(project.workspace)
    after = snapshot(project.root)
    after.pop("vendor/llama.cpp/.git/qlutattn/lock", None)
    before.pop("vendor/llama.cpp/.git/qlutattn/lock", None)
    assert after == before
    return status.state, [item.link for item in status.stale]


def test_absent(made):
    shutil.rmtree(made.tree)
    assert state(made) == ("absent", [])


def test_clean(made):
    assert state(made) == ("clean", [])


def test_applied_and_reverted(applied):
    assert state(applied) == ("applied", [])
    revert(applied.workspace)
    assert state(applied) == ("clean", [])


def test_dirty(applied):
    edit(applied.tree / "ggml/src/ggml.c", "return 3", "return 4")
    (applied.tree / "mine").write_text("mine\n")
    status = read_status(applied.workspace)
    assert status.state == "dirty"
    assert status.foreign == ("ggml/src/ggml.c", "mine")
    assert [item.link for item in status.stale] == ["receipt -> files"]


def test_templates_are_newer_than_patches(applied):
    edit(applied.workspace.templates / "hooks" / "align.toml", "// third", "// the third")
    assert state(applied) == ("stale", ["templates -> patches"])
    assert read_status(applied.workspace).stale[0].why == (
        "templates/ has changed since the patches were generated;"
        " qlutattn generate would change align.patch, receipt.json"
    )


def test_templates_that_are_wrong_are_a_stale_link(applied):
    edit(applied.workspace.templates / "hooks" / "align.toml", 'until = "Never."', "")
    status = read_status(applied.workspace)
    assert status.state == "stale"
    assert "'until' is missing" in status.stale[0].why


def test_patches_are_newer_than_the_tree(applied):
    edit(applied.workspace.templates / "hooks" / "align.toml", "// third", "// the third")
    generate(applied.workspace, applied.repository).write()
    assert state(applied) == ("stale", ["patches -> tree"])


def test_patches_are_missing(applied):
    (applied.workspace.patches / "types.patch").unlink()
    assert state(applied) == ("stale", ["templates -> patches"])


def test_the_pin_has_moved(applied):
    edit(applied.upstream / "LICENSE", "MIT", "newer")
    git(applied.upstream, "commit", "--quiet", "--all", "-m", "newer")
    write_pin(applied.root, applied.upstream)
    assert state(applied) == ("stale", ["pin -> patches", "pin -> tree"])
    revert(applied.workspace)
    assert state(applied) == ("stale", ["pin -> patches", "pin -> tree"])


def test_head_has_moved(applied):
    edit(applied.tree / "LICENSE", "MIT", "newer")
    git(applied.tree, "commit", "--quiet", "LICENSE", "-m", "newer")
    assert state(applied) == ("stale", ["pin -> tree", "pin -> tree"])


def test_a_file_of_the_patches_is_gone(applied):
    git(applied.tree, "checkout", "--", "ggml/src/ggml.c")
    (applied.tree / "tools/prüf stand/main.c").unlink()
    assert state(applied) == ("stale", ["receipt -> files"])
    assert read_status(applied.workspace).stale[0].why == (
        "not as they were applied: ggml/src/ggml.c, tools/prüf stand/main.c"
    )


def test_an_interrupted_apply(made):
    series = load_series(made.workspace.patches)
    journal = made.tree / ".git/qlutattn/txn/journal.json"
    for count in range(1, 300, 4):
        if not killed_at(count, made.tree, lambda: apply(made.workspace, series)) or journal.exists():
            break
    assert journal.exists()
    assert state(made) == ("stale", ["receipt -> files"])
    assert journal.exists()
    apply(made.workspace, series)
    assert state(made) == ("applied", [])


# --- the whole chain

BUILD, BUILD_BENCH = "tree -> native: align_attn", "tree -> native: bench_attn"
ALIGN, BENCH = "native: align_attn -> align", "native: bench_attn -> bench"
AGAIN = {
    BUILD: "qlutattn build --preset native --target align_attn",
    BUILD_BENCH: "qlutattn build --preset native --target bench_attn",
    ALIGN: "qlutattn align --preset native",
    BENCH: "qlutattn bench --preset native --work pack",
}


def test_a_chain_that_holds_is_told_without_making_patches(built, monkeypatch):
    monkeypatch.setattr(status_module, "generate", lambda *_: pytest.fail("a second of work for nothing"))
    assert stale(built) == {}
    (build,) = read_status(built.workspace).builds
    assert (build.preset, set(build.targets), set(build.results)) == (
        "native",
        {"align_attn", "bench_attn"},
        {"align", "bench"},
    )


def test_templates_edited_then_each_next_command_done(built):
    edit(built.workspace.templates / "hooks" / "align.toml", "// third", "// the third")
    assert list(stale(built)) == ["templates -> patches"]
    assert stale(built)["templates -> patches"][1] == "qlutattn generate"
    generate(built.workspace, built.repository).write()
    assert stale(built) == {"patches -> tree": ("patches/ has changed since it was applied", "qlutattn apply")}
    apply(built.workspace, load_series(built.workspace.patches))
    why = "the templates and the patches changed since {} was built"
    assert stale(built) == {
        BUILD: (why.format("align_attn"), AGAIN[BUILD]),
        BUILD_BENCH: (why.format("bench_attn"), AGAIN[BUILD_BENCH]),
    }
    put_build(built, program=b"newer program")
    why = "it is of another build (the templates; the patches)"
    assert stale(built) == {ALIGN: (why, AGAIN[ALIGN]), BENCH: (why, AGAIN[BENCH])}
    put_results(built)
    assert stale(built) == {}


def test_a_comment_in_a_template_goes_all_the_way_too(built):
    with (built.workspace.templates / "hooks" / "align.toml").open("a") as file:
        file.write("# nothing that a patch shows\n")
    assert stale(built) == {
        "templates -> patches": (
            "templates/ has changed since the patches were generated; qlutattn generate would change receipt.json",
            "qlutattn generate",
        )
    }
    generate(built.workspace, built.repository).write()
    why = "the same patches were generated from other templates when applied"
    assert stale(built) == {"patches -> tree": (why, "qlutattn apply")}
    apply(built.workspace, load_series(built.workspace.patches))
    assert [why for why, _ in stale(built).values()] == [
        f"the templates changed since {target} was built" for target in ("align_attn", "bench_attn")
    ]


def test_a_patch_edited_by_hand(built):
    edit(built.workspace.patches / "types.patch", "+#include", "+# include")
    found = stale(built)
    assert list(found) == ["templates -> patches", "patches -> tree"]
    assert found["templates -> patches"] == ("not as generated: types.patch", "qlutattn generate")


@pytest.mark.parametrize(
    "text", [None, "", "{}", '{"schema": 1, "templates": 1, "upstream": "x", "patches": {}}', "<<<<<<< a"]
)
def test_the_receipt_of_the_patches_is_missing_or_torn(built, text):
    path = built.workspace.patches / "receipt.json"
    path.unlink() if text is None else path.write_text(text)
    why, fix = stale(built)["templates -> patches"]
    assert "which records the inputs of the patches" in why
    assert fix == "qlutattn generate"


def test_a_file_of_the_tree_edited(built):
    edit(built.tree / "ggml/src/ggml.c", "return 3", "return 4")
    found = stale(built)
    assert list(found) == ["receipt -> files", BUILD, BUILD_BENCH]
    assert found[BUILD] == ("files of the tree changed since align_attn was built", AGAIN[BUILD])
    assert read_status(built.workspace).state == "dirty"


def test_the_folder_was_configured_anew_for_another_program(built):
    folder = built.workspace.build_dir("native")
    stamp = json.loads((folder / "qlutattn-build.json").read_text())
    stamp["facts"]["LLAMA_BUILD_TOOLS"] = "ON"
    (folder / "qlutattn-build.json").write_text(json.dumps(stamp))
    assert stale(built) == {}  # which only adds targets
    stamp["facts"]["CXXFLAGS"] = "-O1"
    (folder / "qlutattn-build.json").write_text(json.dumps(stamp))
    why = "the folder was reconfigured since: CXXFLAGS changed from nothing to -O1"
    assert stale(built) == {BUILD: (why, AGAIN[BUILD]), BUILD_BENCH: (why, AGAIN[BUILD_BENCH])}


def test_rebuilt_with_another_compiler(built):
    put_build(built, GCC | {"C++ compiler": "/usr/bin/clang++ (clang 19)"}, b"another program")
    why = "it is of another build (the C++ compiler changed from /usr/bin/c++ (gcc 12) to /usr/bin/clang++ (clang 19))"
    assert stale(built) == {ALIGN: (why, AGAIN[ALIGN]), BENCH: (why, AGAIN[BENCH])}


def test_built_by_something_else(built):
    (built.workspace.build_dir("native") / "bin" / "align_attn").write_bytes(b"by ninja alone")
    assert stale(built) == {
        BUILD: ("not as qlutattn build left it: align_attn", AGAIN[BUILD]),
        ALIGN: ("it is of another build", f"{AGAIN[BUILD]} && {AGAIN[ALIGN]}"),  # align judges no stale program
    }


def test_a_build_that_did_not_finish_and_a_torn_stamp(built):
    stamp = built.workspace.build_dir("native") / "qlutattn-build.json"
    known = read_stamp(stamp.parent)
    Stamp(known.facts, {"bench_attn": known.targets["bench_attn"]}).write(stamp.parent)
    why = "it is unknown what it was built from: its last build did not finish, or was not qlutattn's"
    assert stale(built) == {BUILD: (why, AGAIN[BUILD])}
    stamp.write_bytes(stamp.read_bytes()[:50])
    why = "its last configure did not finish, or qlutattn-build.json is incomplete"
    assert stale(built) == {"tree -> native": (why, "qlutattn build --preset native")}


def test_measured_on_another_cpu(built, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("model name: Another CPU\n")
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    why, fix = stale(built)[BENCH]
    assert why.startswith("it was taken on another CPU (")
    assert why.endswith("; this is Another CPU)")
    assert fix == AGAIN[BENCH]


def test_a_failed_align_and_a_torn_bench(built):
    put_results(built, ok=False)
    torn = built.workspace.build_dir("native") / "qlutattn-bench.json"
    torn.write_bytes(torn.read_bytes()[:100])
    assert stale(built) == {
        ALIGN: ("it failed (1 cases)", AGAIN[ALIGN]),
        BENCH: ("qlutattn-bench.json is incomplete, or not a result of bench", "qlutattn bench --preset native"),
    }


def test_a_result_of_sampling_is_of_bench(built):
    folder = built.workspace.build_dir("native")
    link = "native: bench_sampling -> sampling"
    results.keep(built.workspace, "native", results.SAMPLING, {"rows": [], "arguments": ["--work", "sampling"]})
    results.file_of(folder, results.SAMPLING).write_text("cut")
    assert stale(built)[link][1] == "qlutattn bench --preset native --work sampling"


def test_builds_outlive_the_patches_in_the_tree(built):
    revert(built.workspace)
    assert read_status(built.workspace).state == "clean"
    assert stale(built)[BUILD] == (
        "align_attn was built from a patched tree, and this one is not",
        f"qlutattn apply && {AGAIN[BUILD]}",
    )


def test_a_users_checkout_has_the_same_chain(built):
    own = replace(built, workspace=Workspace(built.root, built.upstream))
    apply(own.workspace, load_series(own.workspace.patches))
    put_build(own)
    put_results(own)
    status = read_status(own.workspace)
    assert (status.state, status.stale, status.builds[0].preset) == ("applied", (), "native")
    edit(built.upstream / "ggml/src/ggml.c", "return 3", "return 4")
    found = {item.link: item.next for item in read_status(own.workspace).stale}
    assert found[BUILD].endswith(f"--tree '{built.upstream}'")


def test_what_the_command_prints(built, monkeypatch, capsys):
    monkeypatch.setattr(Workspace, "find", classmethod(lambda cls, tree=None: built.workspace))
    (built.workspace.build_dir("native") / "bin" / "bench_attn").write_bytes(b"by ninja alone")
    assert main.run(["status"]) == 0
    out = capsys.readouterr().out
    assert f"templates: {load_series(built.workspace.patches).templates}" in out
    assert "align: 1 passed, 0 failed  native" in out
    assert f"stale: {BENCH}: it is of another build\n  next: {AGAIN[BENCH]}\n" in out
    assert main.run(["status", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    chain, series = record["chain"], load_series(built.workspace.patches)
    assert [item["link"] for item in record["stale"]] == [BUILD_BENCH, BENCH]
    assert chain["templates"] == chain["patches"]["templates"] == chain["tree"]["templates"] == series.templates
    assert record["series"] == chain["tree"]["series"] == series.digest
    assert chain["patches"]["patches"] == {patch.name: patch.digest for patch in series.patches}
    (build,) = chain["builds"]
    assert build["targets"]["align_attn"]["origin"]["tree"] == chain["tree"]["result"] == chain["tree"]["now"]
    assert build["results"]["align"]["result"] == {"ok": True, "passed": 1, "failed": 0}
    assert build["results"]["bench"]["result"] == {"arguments": ["--work", "pack"], "rows": 2}


def test_every_link_is_in_the_docs():
    page = (ROOT / "docs" / "provenance.md").read_text(encoding="utf-8")
    named = [value for name, value in vars(status_module).items() if isinstance(value, str) and " -> " in value]
    assert len(named) == 5
    assert all(f"| `{link}` |" in page for link in named)
    assert all(file in page for file in ("patches/receipt.json", "qlutattn-build.json", "qlutattn-provenance.h"))
