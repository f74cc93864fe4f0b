"""The rooms of the package stand in one order, and imports go down it: docs/architecture.md says what each is for."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Dict, Iterator, List, Set

import flexalign_plugin

PACKAGE = Path(flexalign_plugin.__file__).parent
# From the top to the bottom; a room may import those below it, whether at once or only when it needs them.
ORDER = (
    *("viewers", "wizards", "wizards_of_particles", "wizard_dialogs", "protocols"),
    *("__main__", "cli", "commands", "plugin"),
    *("xmipp_workflow", "runs", "execution", "report_pages", "kernels"),
    *("aligner", "output", "result", "quality", "correction", "motion"),
    *("phantoms", "movies", "particles"),
    *("backend", "settings", "files"),
    *("frame_doses", "option", "star_format", "band", "inputs", "errors", "resolution", "result_files", "sanity"),
    *("bibtex", "launch", "jit", "memory", "__init__", "no_home"),
)
# pyworkflow asks the package itself for its plugin, which is loaded only then.
EXCEPTIONS = {("__init__", "plugin")}


def modules() -> Dict[str, Path]:
    """{dotted name below the package: file} of everything but the tests."""
    found = {}
    for room in ("", *(entry.name for entry in PACKAGE.iterdir() if entry.is_dir() and entry.name != "tests")):
        for path in sorted((PACKAGE / room).rglob("*.py") if room else PACKAGE.glob("*.py")):
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: Set[str]) -> Iterator[str]:
    """Modules of the package that this one names, anywhere in its code."""
    package = name.split(".") if path.name == "__init__.py" and name != "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("flexalign_plugin."):
                    yield alias.name.split(".", 1)[1]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            elif (node.module or "").split(".")[0] == "flexalign_plugin":
                base = (node.module or "").split(".")[1:]
            else:
                continue
            for alias in node.names:
                below = ".".join([*base, alias.name])
                yield below if below in known else ".".join(base) or "__init__"


def imports() -> Dict[str, List[str]]:
    found = modules()
    return {name: sorted({*imported(name, path, set(found))} - {name}) for name, path in found.items()}


def room(name: str) -> str:
    return name.split(".")[0]


def test_every_room_has_its_place():
    assert {room(name) for name in modules()} == set(ORDER)


def test_imports_go_down():
    upwards = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in others
        if room(other) != room(name)
        and (name, other) not in EXCEPTIONS
        and ORDER.index(room(other)) < ORDER.index(room(name))
    ]
    assert not upwards


def test_no_files_import_each_other_in_a_circle():
    graph, done = imports(), set()

    def visit(name: str, path: List[str]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in graph.get(name, []):
                # A package's own list of names is no part of a circle through one of its files.
                if not name.startswith(other + "."):
                    visit(other, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
