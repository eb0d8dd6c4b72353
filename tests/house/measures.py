"""What can be counted of the product's house: `python tests/house/measures.py [MEASURE...]`.

Without arguments it prints each measure with its limit and its goal from `limits.toml`, and the ten largest files;
with names of measures, every place that these count. A measure is a function that returns the places that it counts,
as `file:line what` or a file's name, or a number. `test_measures.py` lets none of them get worse.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import io
import os
import re
import statistics
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "watchdog" / "agentctl"
TESTS = CHECKOUT / "tests"
RECOVERY = "agentctl.recovery.process"  # what a plain rollback imports
LIMITS = Path(__file__).with_name("limits.toml")

MOST_LINES = 450
SHOWN_PLACES, SHOWN_FILES = 20, 10
SECONDS = 600.0
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
           tokenize.ENDMARKER}  # fmt: skip
LEFT_ALONE = re.compile(r"#\s*fmt:\s*(skip|off)\b")

Found = int | list[str]


# -- mypy -----------------------------------------------------------------------------------------


def mypy_errors(checkout: Path, cache: Path, *, is_strict: bool) -> list[str]:
    """Return mypy's errors in what `[tool.mypy]` of a checkout names."""
    cache = cache / ("strict" if is_strict else "normal")  # with other options mypy would begin anew each time
    cache.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-B", "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", str(cache)]
    argv += ["--no-error-summary", "--no-pretty", "--no-color-output", *(["--strict"] if is_strict else [])]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MYPY")}
    with _locked(cache):
        done = subprocess.run(argv, cwd=checkout, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"mypy did not come to its end: {done.stdout}{done.stderr}")
    return sorted(line for line in done.stdout.splitlines() if ": error: " in line)


def strict_packages(checkout: Path) -> list[str]:
    """Return the packages that mypy checks as --strict does, also without it: by their folders."""
    overrides = tomllib.loads((checkout / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    patterns = [pattern for part in overrides if part.get("disallow_untyped_defs") for pattern in part["module"]]
    return [pattern.removesuffix(".*").replace(".", "/") for pattern in patterns]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cache_folder() -> Path:
    """Return where mypy keeps what it knows, beside what `packaging/test` keeps."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "agentctl", "mypy")


# -- files ----------------------------------------------------------------------------------------


def modules(package: Path) -> list[str]:
    """Return every module's file."""
    return [_name(path, package) for path in _files(package)]


def names_twice(folder: Path) -> list[str]:
    """Return the names that several files below a folder have; each package and each part of the tests needs some."""
    counts = Counter(path.name for path in _files(folder) if path.name not in ("__init__.py", "conftest.py"))
    return sorted(name for name, count in counts.items() if count > 1)


def long_files(package: Path, most: int = MOST_LINES) -> list[str]:
    """Return the files with more lines than a file may have."""
    return [name for name, lines in _lengths(package) if lines > most]


def largest_files(package: Path) -> list[tuple[str, int]]:
    """Return the largest files and their lines."""
    return sorted(_lengths(package), key=lambda found: -found[1])[:SHOWN_FILES]


def median_lines(package: Path) -> int:
    """Return how many lines the module in the middle has, `__init__` aside."""
    return round(statistics.median(lines for name, lines in _lengths(package) if not _is_init(name)))


def missing_tests(package: Path, tests: Path) -> list[str]:
    """Return the modules, `__init__` aside, that lack a `tests/*/<package>/test_<module>.py`."""
    own = [path.relative_to(package) for path in _files(package) if path.name != "__init__.py"]
    return [path.as_posix() for path in own if not any(tests.glob(f"*/{path.with_name('test_' + path.name)}"))]


def unformatted_places(package: Path) -> list[str]:
    """Return where a comment keeps the formatter away."""
    found = []
    for path in _files(package):
        text = path.read_text()
        for token in tokenize.generate_tokens(io.StringIO(text).readline) if LEFT_ALONE.search(text) else ():
            if token.type == tokenize.COMMENT and LEFT_ALONE.search(token.string):
                found.append(f"{_name(path, package)}:{token.start[0]}")
    return found


# -- code -----------------------------------------------------------------------------------------


def dict_takers(package: Path) -> list[str]:
    """Return the public functions, and the public methods of public classes, that have a parameter of type dict."""
    found = []
    for path in _files(package):
        for function, name in _public_functions(ast.parse(path.read_text())):
            of = function.args
            if any(_is_dict(arg.annotation) for arg in (*of.posonlyargs, *of.args, *of.kwonlyargs)):
                found.append(f"{_name(path, package)}:{function.lineno} {name}")
    return found


def _public_functions(tree: ast.AST, within: str = "") -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Yield functions that others may call, and their names; functions within functions are nobody else's."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and node.name.startswith("_"):
            continue
        if isinstance(node, FUNCTIONS):
            yield node, f"{within}{node.name}"
        else:
            yield from _public_functions(node, f"{within}{node.name}." if isinstance(node, ast.ClassDef) else within)


def _is_dict(annotation: ast.expr | None) -> bool:
    """Tell whether a type is dict or dict[...], or one of several of them is."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        return _is_dict(annotation.left) or _is_dict(annotation.right)
    kind = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return isinstance(kind, ast.Name) and kind.id == "dict"


def string_keys(package: Path) -> list[str]:
    """Return each `x["key"]`."""
    found = []
    for path in _files(package):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                is_type = ast.unparse(node.value).rpartition(".")[2] == "Literal"
                if isinstance(node.slice.value, str) and not is_type:
                    found.append((_name(path, package), node.lineno, ast.unparse(node)))
    return [f"{name}:{line} {text}" for name, line, text in sorted(found)]


def late_imports(package: Path) -> list[str]:
    """Return each import inside a function."""
    return [
        f"{_name(path, package)}:{node.lineno} {ast.unparse(node)}"
        for path in _files(package)
        for node, is_late in _imports(ast.parse(path.read_text()))
        if is_late
    ]


def _imports(tree: ast.AST, is_late: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield each import that is carried out, not those for types alone, and whether a function does it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, is_late
        elif isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            yield from _imports(ast.Module(node.orelse, []), is_late)
        elif not isinstance(node, ast.expr):
            yield from _imports(node, is_late or isinstance(node, FUNCTIONS))


def code_lines(text: str) -> int:
    """Count the lines of a module that are neither blank nor comment nor docstring."""
    ends: dict[int, tuple[int, int]] = {}  # of the docstring on a line
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            end = first.end_lineno or first.lineno, first.end_col_offset or 0
            ends |= dict.fromkeys(range(first.lineno, end[0] + 1), end)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_docstring = token.type == tokenize.STRING and token.end <= ends.get(token.start[0], (0, 0))
        if token.type not in NO_CODE and not is_docstring:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines)


# -- what an import loads -------------------------------------------------------------------------


def loaded_modules(package: Path, entry: str) -> list[str]:
    """Return the files of the package, `__init__` aside, that importing `entry` loads in a fresh Python."""
    code = f"import sys; sys.path.insert(0, {str(package.parent)!r}); import {entry}; print(*sys.modules, sep='\\n')"
    argv = [sys.executable, "-I", "-S", "-B", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=SECONDS)
    return _without_init(package, set(done.stdout.splitlines()))


def reached_modules(package: Path, entry: str) -> list[str]:
    """Return the files of the package, `__init__` aside, that `entry` can load, also by imports inside functions."""
    files = _by_name(package)
    reached: set[str] = set()
    pending = [entry, *_needs(entry, files[entry])]
    while pending:
        name = pending.pop()
        if name in files and name not in reached:
            reached.add(name)
            pending += [name.rpartition(".")[0], *_needs(name, files[name])]
    return _without_init(package, reached)


def lines_of(package: Path, names: list[str]) -> int:
    """Count the lines of code of some modules of a package."""
    return sum(code_lines((package / name).read_text()) for name in names)


def _by_name(package: Path) -> dict[str, Path]:
    """Return the files by the names that an import has for them."""
    words = {path: path.relative_to(package.parent).with_suffix("").parts for path in _files(package)}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in words.items()}


def _needs(name: str, path: Path) -> Iterator[str]:
    """Yield what a module imports, and what of that may be a module too."""
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node, _ in _imports(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            above = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _without_init(package: Path, names: set[str]) -> list[str]:
    paths = [path for name, path in _by_name(package).items() if name in names]
    return [_name(path, package) for path in paths if path.name != "__init__.py"]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _is_init(name: str) -> bool:
    return name.rpartition("/")[2] == "__init__.py"


def _lengths(package: Path) -> list[tuple[str, int]]:
    return [(_name(path, package), len(path.read_text().splitlines())) for path in _files(package)]


# -- measures and limits --------------------------------------------------------------------------


class Measure(NamedTuple):
    """What is counted, in words, and the function that does it."""

    what: str
    count: Callable[[], Found]


MEASURES = {
    "mypy": Measure("errors of mypy", lambda: mypy_errors(CHECKOUT, cache_folder(), is_strict=False)),
    "mypy_strict": Measure("errors of mypy --strict", lambda: mypy_errors(CHECKOUT, cache_folder(), is_strict=True)),
    "modules": Measure("modules of the product", lambda: modules(PACKAGE)),
    "names_twice": Measure("file names that occur twice in the product", lambda: names_twice(PACKAGE)),
    "names_twice_in_tests": Measure("file names that occur twice in the tests", lambda: names_twice(TESTS)),
    "long_files": Measure(f"files over {MOST_LINES} lines", lambda: long_files(PACKAGE)),
    "missing_tests": Measure("modules without a test file of their own", lambda: missing_tests(PACKAGE, TESTS)),
    "unformatted_places": Measure("places kept from the formatter", lambda: unformatted_places(PACKAGE)),
    "dict_takers": Measure("public functions that take a dict", lambda: dict_takers(PACKAGE)),
    "string_keys": Measure('subscripts with a string, x["key"]', lambda: string_keys(PACKAGE)),
    "late_imports": Measure("imports inside functions", lambda: late_imports(PACKAGE)),
    "rollback_modules": Measure("modules that a rollback loads", lambda: loaded_modules(PACKAGE, RECOVERY)),
    "rollback_lines": Measure(
        "lines of code that a rollback loads", lambda: lines_of(PACKAGE, loaded_modules(PACKAGE, RECOVERY))
    ),
    "rollback_reach": Measure("modules that a rollback can reach", lambda: reached_modules(PACKAGE, RECOVERY)),
    "rollback_reach_lines": Measure(
        "lines of code that a rollback can reach", lambda: lines_of(PACKAGE, reached_modules(PACKAGE, RECOVERY))
    ),
    "median_lines": Measure("lines of the median module", lambda: median_lines(PACKAGE)),
}
ONLY_TOLD = ("median_lines",)  # more is neither better nor worse


class Limit(NamedTuple):
    """How much there may be now, how much there is to be one day, and how much less is no gain yet."""

    now: int
    goal: int | None = None
    slack: int = 0


def read_limits(path: Path = LIMITS) -> dict[str, Limit]:
    """Read the limit of each measure."""
    return {name: Limit(**words) for name, words in tomllib.loads(path.read_text()).items()}


def number_of(found: Found) -> int:
    """Return how much was counted."""
    return found if isinstance(found, int) else len(found)


def problem_with(name: str, what: str, found: Found, limit: Limit) -> str | None:
    """Say what is wrong with what a measure found: more than the limit, or less, which is to become the limit.

    Below the goal it may go up and down.
    """
    number, allowed = number_of(found), max(limit.now, limit.goal or 0)
    if number > allowed:
        places = [] if isinstance(found, int) else found
        shown = "".join(f"\n  {place}" for place in places[:SHOWN_PLACES])
        more = f"\n  and {number - SHOWN_PLACES} more" if len(places) > SHOWN_PLACES else ""
        hint = f"\n`python tests/house/measures.py {name}` lists them all" if more else ""
        return f"{number} {what}, and {allowed} are allowed:{shown}{more}{hint}"
    lower = max(number, limit.goal or 0)
    if lower + limit.slack < limit.now:
        return f"{number} {what}, {limit.now} before: write 'now = {lower}' for {name} in limits.toml to keep the gain"
    return None


def main(*names: str) -> None:
    """Print the table, or all places of some measures."""
    for name in names:
        found = MEASURES[name].count()
        print(*([found] if isinstance(found, int) else found), sep="\n")
    if names:
        return
    limits = read_limits()
    print(f"{'measure':<22} {'now':>6} {'limit':>6} {'goal':>6}")
    for name, measure in MEASURES.items():
        limit = limits.get(name)
        words = ["-" if word is None else str(word) for word in (limit or (None, None))]
        print(f"{name:<22} {number_of(measure.count()):>6} {words[0]:>6} {words[1]:>6}  {measure.what}")
    print("\nthe largest files")
    for file, lines in largest_files(PACKAGE):
        print(f"{lines:>6} {file}")


if __name__ == "__main__":
    main(*sys.argv[1:])
