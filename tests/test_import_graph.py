"""No circle between modules: imports inside functions count, those under `TYPE_CHECKING` do not."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("qianmian", "features", "models", "training", "serving", "cli")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}


def imported(tree: ast.AST) -> set[str]:
    """The product's modules that a module imports, anywhere in it."""
    found: set[str] = set()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack += node.orelse
            continue
        stack += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from package import module` imports the module; `from module import name` the module it stands in
            found |= {
                full if (full := f"{node.module}.{alias.name}") in FILES else str(node.module) for alias in node.names
            }
    return found & set(FILES)


def with_packages(name: str, found: set[str]) -> set[str]:
    """The modules, and the packages around them, whose `__init__` runs first; not those that `name` is in itself."""
    around = {module.rsplit(".", place)[0] for module in found for place in range(1, module.count(".") + 1)}
    return (found | {package for package in around if not f"{name}.".startswith(f"{package}.")}) - {name}


def test_no_circle_between_modules():
    graph = {
        name: with_packages(name, imported(ast.parse(path.read_text(encoding="utf-8")))) for name, path in FILES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def test_a_circle_would_be_found():
    tree = ast.parse("def f():\n    from qianmian import errors\nif TYPE_CHECKING:\n    import qianmian.schema\n")
    assert imported(tree) == {"qianmian.errors"}


def test_the_package_around_a_module_counts():
    """`training.tracking` imported first would import a job that imports `training.tracking`."""
    assert with_packages("training.tracking", {"training.jobs.base"}) == {"training.jobs.base", "training.jobs"}
    assert with_packages("training.jobs.churn", {"training.jobs.base"}) == {"training.jobs.base"}
