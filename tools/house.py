"""Print the state of the code as a Markdown table: of one source root, or of two side by side.

    python tools/house.py OLD/src/thawlab src/thawlab

Lines of a function run from `def` to its end, its docstring included. Parameters are all but self and cls. Fan-in and
fan-out count modules of the package that import, or are imported, anywhere in a module, also for types alone.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

RESULTS = ("results", "test", "phase", "row", "measured", "data", "found", "suspects")
CONTEXTS = (
    *("Setup", "Job", "Material", "Moving", "Saver", "TrainingState", "Context", "PhaseData", "OptimizerState"),
    *("Timing", "Outputs"),
)
DIALECT = (
    *(r"pictures?", r"material", r"(?-i:Moving)", r"homeless", r"strangers?", r"strange", r"foreign", r"so many"),
    *(r"Say whether", r"no numbers", r"turned round", r"bursts?", r"by heart", r"learnt"),
)
LONGEST_FUNCTION, MOST_PARAMETERS, LONGEST_FILE, WIDEST_FAN = 60, 5, 300, 12

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A file of the package: its dotted name, its text and its tree."""

    name: str
    is_package: bool
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed text."""
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        """The number of lines of the file, empty ones included."""
        return len(self.text.splitlines())

    def find(self, *kinds: type) -> Iterator[ast.AST]:
        """Yield all nodes of these kinds."""
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))


def read(root: Path) -> list[Module]:
    modules = []
    for file in sorted(root.rglob("*.py")):
        parts = [root.name, *file.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, is_package, file.read_text(encoding="utf-8")))
    return modules


def functions(modules: list[Module]) -> list[tuple[str, Function]]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(f"{m.name}.{node.name}", node) for m in modules for node in m.find(*kinds) if isinstance(node, kinds)]


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    extra = len(given.kwonlyargs) + (given.vararg is not None) + (given.kwarg is not None)
    return len(names[1:] if names[:1] in (["self"], ["cls"]) else names) + extra


def imported(module: Module, names: set[str]) -> set[str]:
    """Return the modules of the package that a module imports; a name of a package that is a module counts as that module."""
    found: set[str] = set()
    for node in module.find(ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom):
            here = module.name.split(".")
            up = here[: len(here) - node.level + module.is_package] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            targets = (f"{base}.{alias.name}" if f"{base}.{alias.name}" in names else base for alias in node.names)
            found.update(target for target in targets if target in names)
    return found - {module.name}


def fans(modules: list[Module]) -> tuple[Counter[str], Counter[str]]:
    """Return how many modules import each, and how many each imports."""
    names = {module.name for module in modules}
    outward = {module.name: imported(module, names) for module in modules}
    fan_in = Counter(target for targets in outward.values() for target in targets)
    return fan_in, Counter({name: len(targets) for name, targets in outward.items()})


def is_result(node: ast.expr) -> bool:
    """Return whether an expression is, or is taken out of, a variable named for results."""
    while True:
        if isinstance(node, ast.Attribute):
            if node.attr in RESULTS:
                return True
            node = node.value
        elif isinstance(node, ast.Name):
            return node.id in RESULTS
        elif isinstance(node, ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return False


def is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def string_indexings(module: Module) -> int:
    count = 0
    for node in module.find(ast.Subscript, ast.Call):
        if isinstance(node, ast.Subscript):
            count += is_string(node.slice) and is_result(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            count += is_string(node.args[0]) and is_result(node.func.value)
    return count


def words(module: Module) -> str:
    """Return a module's identifiers, comments and strings as text: snake_case and CamelCase taken apart."""
    kinds = {tokenize.NAME, tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(module.text).readline) if token.type in kinds]
    apart = (re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", token.string) for token in tokens)
    return "\n".join(re.sub(r"\s+", " ", text) for text in apart)


def named(counts: dict[str, int], above: int) -> str:
    """Write how many are above a limit, and the three worst by name."""
    worst = sorted(((count, name) for name, count in counts.items() if count > above), reverse=True)
    return f"{len(worst)}" + (": " + ", ".join(f"{name} {count}" for count, name in worst[:3]) if worst else "")


def measure(root: Path, watched: list[str]) -> dict[str, str]:
    modules = read(root)
    fan_in, fan_out = fans(modules)
    rows = {
        "modules": str(len(modules)),
        "lines of *.py": str(sum(module.lines for module in modules)),
        f"functions over {LONGEST_FUNCTION} lines": named({n: length(f) for n, f in functions(modules)}, LONGEST_FUNCTION),
        f"functions with over {MOST_PARAMETERS} parameters": named(
            {name: parameters(function) for name, function in functions(modules)}, MOST_PARAMETERS
        ),
        f"files over {LONGEST_FILE} lines": named({module.name: module.lines for module in modules}, LONGEST_FILE),
        f"modules with fan-in over {WIDEST_FAN}": named(fan_in, WIDEST_FAN),
        f"modules with fan-out over {WIDEST_FAN}": named(fan_out, WIDEST_FAN),
        "results indexed by a string": str(sum(map(string_indexings, modules))),
    }
    classes = [node.name for module in modules for node in module.find(ast.ClassDef) if isinstance(node, ast.ClassDef)]
    contexts = sorted({name for name in classes if name in CONTEXTS})
    rows["classes that hold a training's context"] = f"{len(contexts)}: {', '.join(contexts)}" if contexts else "0"
    text = "\n".join(words(module) for module in modules)
    for word in DIALECT:
        rows[f"“{word.removeprefix('(?-i:').removesuffix(')')}”"] = str(len(re.findall(rf"\b(?:{word})\b", text, re.IGNORECASE)))
    for name in watched or [name for name, _ in fan_out.most_common(5)]:
        rows[f"fan-out of {name}"] = str(fan_out[name]) if name in fan_out else "–"
    return rows


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    roots = [Path(argument) for argument in sys.argv[1:3]]
    if not roots or not all(root.is_dir() for root in roots):
        print("usage: python tools/house.py ROOT [ROOT] [MODULE …]", file=sys.stderr)
        return 2
    watched = sys.argv[3:] or sorted({name for root in roots for name, _ in fans(read(root))[1].most_common(5)})
    tables = [measure(root, watched) for root in roots]
    print(line(["", *(["before", "after"] if len(roots) == 2 else ["now"])]))
    print(line(["---"] * (len(roots) + 1)))
    for row in tables[0]:
        print(line([row, *(table[row] for table in tables)]))
    print(f"\nResults are what is named, or taken out of, {', '.join(RESULTS)}. Contexts: {', '.join(CONTEXTS)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
