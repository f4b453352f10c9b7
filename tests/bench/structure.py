"""Figures of the package's own structure: sizes, importers, names defined twice, sentences."""

import ast
import re
from argparse import ArgumentParser
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[2]
SMALL = 60  # lines, below which a file may not be worth being one
RUN_FIELDS = {
    *("settings", "budget", "smaller", "command", "identity", "cell", "data", "launching"),
    *("retargeted", "result", "outcome", "finalists", "rivals", "cautions", "best_preset"),
    *("baseline_moved", "search_seconds", "forecast"),
}


def main(arguments: list[str]) -> None:
    """Print one figure per line."""
    parser = ArgumentParser(prog="structure", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--twice", action="store_true", help="list names defined twice")
    options = parser.parse_args(arguments)
    package = options.root / "tokensearch"
    files = {path: path.read_text() for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in files.items()}
    lines = {path: text.count("\n") for path, text in files.items()}
    modules = [path for path in files if path.name != "__init__.py"]
    lengths = sorted(function_lengths(trees.values()))
    twice = defined_twice(trees)
    longest = max(lines, key=lambda path: lines[path])
    readme = (options.root / "README.md").read_text()
    middle, most = median(lengths), quantiles(lengths, n=10)[-1]
    figures = {
        "files": f"{len(modules)}, {sum(lines.values())} lines",
        f"files under {SMALL} lines": sum(lines[path] < SMALL for path in modules),
        "longest file": f"{lines[longest]} ({longest.relative_to(package)})",
        "lines of a function": f"median {middle:.0f}, p90 {most:.0f}",
        "modules with one importer": single_importers(package, trees),
        "subscripts of run documents": sum(map(run_subscripts, trees.values())),
        "public names defined twice": len(twice),
        "one, found, place as names": sum(map(vague_names, trees.values())),
        "lines of the README": readme.count("\n"),
        "words of a README sentence": f"median {sentence_length(readme)}",
        "words of a docstring sentence": f"median {sentence_length(docstrings(trees.values()))}",
    }
    for name, figure in figures.items():
        print(f"{name:<30} {figure}")
    if options.twice:
        for name, where in sorted(twice.items()):
            print(f"  {name}: {', '.join(str(path.relative_to(package)) for path in where)}")


def function_lengths(trees: Iterable[ast.Module]) -> Iterator[int]:
    """Lines of every function, its docstring left out."""
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                documented = ast.get_docstring(node) is not None
                body = node.body[1:] if documented else node.body
                yield (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def defined_twice(trees: dict[Path, ast.Module]) -> dict[str, list[Path]]:
    """Public top-level classes and functions that two modules define."""
    where = defaultdict(list)
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(path)
    return {name: paths for name, paths in where.items() if len(paths) > 1}


def single_importers(package: Path, trees: dict[Path, ast.Module]) -> int:
    """Modules that one other module of the package imports, `__init__` left out."""
    importers: dict[str, set[Path]] = defaultdict(set)
    for path, tree in trees.items():
        if path.name == "__init__.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tokensearch"):
                importers[node.module or ""].add(path)
                for alias in node.names:
                    importers[f"{node.module}.{alias.name}"].add(path)
    named = (
        ".".join(("tokensearch", *path.relative_to(package).with_suffix("").parts))
        for path in trees
        if path.name != "__init__.py"
    )
    return sum(len(importers[name]) == 1 for name in named)


def run_subscripts(tree: ast.Module) -> int:
    """Subscripts and `.get` by the name of a field of run.json."""
    count = 0
    for node in ast.walk(tree):
        key = None
        if isinstance(node, ast.Subscript):
            key = node.slice
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get" and node.args:
            key = node.args[0]
        count += isinstance(key, ast.Constant) and key.value in RUN_FIELDS
    return count


def vague_names(tree: ast.Module) -> int:
    """Assignments and parameters called `one`, `found` or `place`, comprehensions left out."""
    inside = {
        id(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.comprehension)
        for name in ast.walk(node.target)
    }
    lambdas = {
        id(arg) for node in ast.walk(tree) if isinstance(node, ast.Lambda) for arg in node.args.args
    }
    names = Counter(
        node.id if isinstance(node, ast.Name) else node.arg
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Store)
            and id(node) not in inside
        )
        or (isinstance(node, ast.arg) and id(node) not in lambdas)
    )
    return sum(names[name] for name in ("one", "found", "place"))


def docstrings(trees: Iterable[ast.Module]) -> str:
    """Every docstring's first paragraph."""
    texts = []
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                texts.append((ast.get_docstring(node) or "").split("\n\n")[0])
    return "\n\n".join(texts)


def sentence_length(text: str) -> float:
    """Median words of a sentence, code and tables left out."""
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    prose = re.sub(r"^(?:[|#]| {4}).*$", "", prose, flags=re.M)
    sentences = re.split(r"(?<=[.:;!?])\s+|\n\n", prose)
    return median(len(sentence.split()) for sentence in sentences if len(sentence.split()) > 2)
