"""What these pages need beyond Sphinx: modules list themselves, names link, docstrings as we write.

reference    directive: the documented members of modules and packages, each of them in one place
floors       directive: the layers of the import-linter contract, and what stands on each
name         role, the default one: a link where the name is one of ours, else code
types        our classes by their bare names, for numpydoc to link
"""

from __future__ import annotations

import ast
import pkgutil
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import signature as read_signature
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode
from traitlets import HasTraits

ROOT = Path(__file__).parent.parent
PACKAGE = "coachhook_viz"
OFFER = (PACKAGE, f"{PACKAGE}.figures", f"{PACKAGE}.panels", f"{PACKAGE}.store")
"""Packages that offer what their modules define: it is documented under the first that does."""


class Reference(SphinxDirective):
    """The documented members of each module named; of a package, those of its modules too."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Hand the work on to autodoc, one section a module."""
        alone = len(self.content) == 1
        text = "\n".join(line for name in self.content for line in _sections(name.strip(), alone))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _sections(name: str, alone: bool) -> Iterator[str]:
    module = import_module(name)
    modules = [name] if name in OFFER or not hasattr(module, "__path__") else []
    if hasattr(module, "__path__") and name != PACKAGE:
        modules += [info.name for info in pkgutil.iter_modules(module.__path__, f"{name}.")]
    for found in modules:
        if members := _members(found):
            heading = [found, "-" * len(found), ""] if found != name or not alone else []
            yield from (*heading, f".. automodule:: {found}", f"   :members: {', '.join(members)}")
            yield from ("   :inherited-members: ValueError, Exception", "") * (found == PACKAGE)
            yield ""


def _members(name: str) -> list[str]:
    """What is documented under the module `name`: what no package above offers."""
    module = import_module(name)
    if name in OFFER:
        names = [n for n in _offered(name) if not isinstance(getattr(module, n), ModuleType)]
    else:
        documented = ModuleAnalyzer.for_module(name).find_attr_docs()
        names = [*_own(module), *(n for scope, n in documented if not scope)]
    names = [n for n in names if not n.startswith("_")]
    above = OFFER[: OFFER.index(name)] if name in OFFER else OFFER
    offered = [getattr(import_module(n), member) for n in above for member in _offered(n)]
    return [n for n in names if not any(getattr(module, n) is other for other in offered)]


def _offered(name: str) -> list[str]:
    return list(import_module(name).__all__)


def _own(module: ModuleType) -> list[str]:
    """Names of the classes and functions that `module` defines."""
    found = vars(module).items()
    return [name for name, value in found if getattr(value, "__module__", "") == module.__name__]


def types() -> dict[str, str]:
    """All our classes by their bare names; of two with the same name, the public one."""
    found: dict[str, str] = {}
    package = import_module(PACKAGE)
    for info in pkgutil.walk_packages(package.__path__, f"{PACKAGE}."):
        if not info.name.endswith("__main__"):
            module = import_module(info.name)
            found |= {n: f"{info.name}.{n}" for n in _own(module) if not n.startswith("_")}
    return found | {name: f"{PACKAGE}.{name}" for name in _offered(PACKAGE)}


class Floors(SphinxDirective):
    """A table of the floors, the highest first, from the contract that import-linter checks.

    For pages in Markdown.
    """

    def run(self) -> list[nodes.Node]:
        """Read the contract, and the first line of each module's docstring."""
        self.env.note_dependency(str(ROOT / "pyproject.toml"))
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
        layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
        rows = ["| floor | module | what it is |", "| --- | --- | --- |"]
        for floor, layer in zip(range(len(layers), 0, -1), layers, strict=True):
            for module in (name.strip(" ()") for name in layer.split("|")):
                rows.append(f"| {floor} | `{module}` | {_summary(module)} |")
        return self.parse_text_to_nodes("\n".join(rows))


def _summary(module: str) -> str:
    path = ROOT / PACKAGE / module
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return docstring.partition("\n")[0].replace("|", "\\|")


class Name(PyXRefRole):
    """A name in single backquotes."""

    def process_link(
        self,
        env: BuildEnvironment,
        refnode: nodes.Element,
        has_title: bool,
        title: str,
        target: str,
    ) -> tuple[str, str]:
        """Look for it as any object of Python."""
        refnode["refdomain"], refnode["reftype"], refnode["or_code"] = "py", "obj", True
        return super().process_link(env, refnode, has_title, title, target.removesuffix("()"))


def from_the_top(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.TextElement
) -> nodes.Node | None:
    """Find `Session.apply` or `measure.quality` from wherever it is named."""
    if node.get("refdomain") != "py":
        return None
    found = env.domains.python_domain.objects.get(f"{PACKAGE}.{node['reftarget']}")
    if found is not None:
        return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, shown)
    return shown if node.get("or_code") else None


def not_ours(
    app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out methods that a class of another package brings along."""
    if not callable(value):
        return None
    owner = value if getattr(value, "__module__", None) else getattr(value, "__objclass__", value)
    return None if str(getattr(owner, "__module__", PACKAGE)).startswith(PACKAGE) else True


def with_types(app: Sphinx, value: Any, bound: bool) -> None:
    """Let annotations be read that name what a module imports for type checkers only."""
    known = getattr(value, "__globals__", {})
    if str(known.get("__name__")).startswith(f"{PACKAGE}."):
        package = import_module(PACKAGE)
        for name in _offered(PACKAGE):
            known.setdefault(name, getattr(package, name))


def readable(
    app: Sphinx,
    what: str,
    name: str,
    value: Any,
    options: Any,
    signature: str | None,
    returned: str,
) -> tuple[str, str] | None:
    """What a class takes, of a widget what its `__init__` does: its `__new__` takes anything."""
    if what != "class":
        return None
    if issubclass(value, HasTraits):
        with_types(app, value.__init__, True)
        init = read_signature(value.__init__, bound_method=True)
        signature = stringify_signature(init, True, False, unqualified_typehints=True)
    return (signature or "").replace("<factory>", "..."), returned


def as_sphinx_reads_it(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Make lists of our plain ones, which are laid out to be read in the code."""
    lines[:] = _listing(lines) if what == "module" else _columns(lines)


def _listing(lines: list[str]) -> list[str]:
    """Of a module: ``name    what it is`` on a line, and indented code."""
    made: list[str] = []
    code = False
    for line in lines:
        if entry := re.fullmatch(r"(\S.*?) {2,}(\S.*)", line):
            names = ", ".join(f"`{name.strip()}`" for name in entry[1].split(","))
            line = f"- {names}: {entry[2]}"
        elif line.startswith("    ") and not code and made and not made[-1]:
            made += [".. code-block:: python", ""]
            code = True
        made.append(line)
    return made


def _columns(lines: list[str]) -> list[str]:
    """Of a frame that is returned: ``fact : int`` on a line, with or without words below."""
    made: list[str] = []
    depth = 0
    for line in lines:
        if entry := re.fullmatch(r"( {4,})(\w[\w, ]*?) : (\S.*)", line):
            depth = len(entry[1])
            names = ", ".join(f"``{name.strip()}``" for name in entry[2].split(","))
            made += ["", f"{entry[1]}- {names} : {entry[3]}"]
        elif depth and line.startswith(" " * (depth + 4)):
            made.append(f"{' ' * depth}  {line.strip()}")
        else:
            made += [""] * bool(depth) + [line]
            depth = 0
    return made


def setup(app: Sphinx) -> Mapping[str, Any]:
    """Sphinx calls this."""
    app.add_role("name", Name())
    app.add_directive("reference", Reference)
    app.add_directive("floors", Floors)
    app.connect("missing-reference", from_the_top)
    app.connect("autodoc-skip-member", not_ours)
    app.connect("autodoc-before-process-signature", with_types)
    app.connect("autodoc-process-signature", readable)
    app.connect("autodoc-process-docstring", as_sphinx_reads_it, priority=400)  # before numpydoc
    return {"parallel_read_safe": True}
