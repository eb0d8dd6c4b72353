"""What is counted of the house gets no worse, and what got better stays so; and the counting itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from house import measures
from house.measures import Limit

LIMITS = measures.read_limits()


@pytest.mark.parametrize("name", LIMITS)
def test_a_measure_gets_no_worse_and_a_gain_is_kept(name: str) -> None:
    measure = measures.MEASURES[name]
    assert (problem := measures.problem_with(name, measure.what, measure.count(), LIMITS[name])) is None, problem


def test_every_measure_has_a_limit() -> None:
    assert [*LIMITS, *measures.ONLY_TOLD] == list(measures.MEASURES)


def test_packages_that_passed_mypy_strict_once_always_do() -> None:
    strict = measures.strict_packages(measures.CHECKOUT)
    assert set(strict) >= {"agentctl/core", "agentctl/config", "agentctl/ledger", "agentctl/recovery"}
    errors = measures.mypy_errors(measures.CHECKOUT, measures.cache_folder(), is_strict=True)
    wrong = [error for error in errors for package in strict if f"{package}/" in error.partition(":")[0]]
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package that has only a docstring yet."""
    return make(tmp_path / "source" / "made", {"__init__.py": '"""Made up."""\n'})


def make(folder: Path, files: dict[str, str]) -> Path:
    """Write files below a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return folder


# -- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "limit"),
    [(5, Limit(5, 0)), (5, Limit(5)), (4, Limit(3, 5)), (2, Limit(5, 5)), (0, Limit(0, 0)), (3, Limit(5, 0, 2))],
    ids=["as before", "without a goal", "more, below the goal", "less, below the goal", "none", "hardly less"],
)
def test_what_is_no_problem(number: int, limit: Limit) -> None:
    assert measures.problem_with("x", "things", number, limit) is None


def test_more_than_the_limit_is_a_problem_that_shows_the_first_places() -> None:
    places = [f"file.py:{n}" for n in range(1, 24)]
    problem = measures.problem_with("x", "things", places, Limit(22, 0))
    assert problem is not None
    assert problem.startswith("23 things, and 22 are allowed:\n  file.py:1\n")
    assert "file.py:20\n  and 3 more\n" in problem and "file.py:21" not in problem
    assert "measures.py x" in problem
    few = measures.problem_with("x", "things", ["a.py:1", "a.py:2"], Limit(1, 0))
    assert few == "2 things, and 1 are allowed:\n  a.py:1\n  a.py:2"
    assert measures.problem_with("x", "lines", 7, Limit(5, 6)) == "7 lines, and 6 are allowed:"


@pytest.mark.parametrize(
    ("number", "limit", "lower"), [(4, Limit(5, 0), 4), (4, Limit(5), 4), (2, Limit(5, 3), 3), (2, Limit(5, 0, 2), 2)]
)
def test_less_than_the_limit_is_to_become_the_limit(number: int, limit: Limit, lower: int) -> None:
    problem = measures.problem_with("x", "things", number, limit)
    assert problem is not None and f"'now = {lower}' for x in limits.toml" in problem


def test_limits_are_read(tmp_path: Path) -> None:
    make(tmp_path, {"limits.toml": "a = { now = 3, goal = 1 }\nb = { now = 2 }\n"})
    assert measures.read_limits(tmp_path / "limits.toml") == {"a": Limit(3, 1), "b": Limit(2, None)}


def test_the_table_tells_numbers_limits_and_goals(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    counted = {"modules": measures.Measure("modules of it", lambda: ["a.py", "b.py"]),
               "median_lines": measures.Measure("lines", lambda: 7)}  # fmt: skip
    monkeypatch.setattr(measures, "MEASURES", counted)
    monkeypatch.setattr(measures, "read_limits", lambda: {"modules": Limit(3, 1)})
    measures.main()
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[:3] == [
        ["measure", "now", "limit", "goal"],
        ["modules", "2", "3", "1", "modules", "of", "it"],
        ["median_lines", "7", "-", "-", "lines"],
    ]
    assert len(table) == len(("head", *counted, "", "head")) + measures.SHOWN_FILES
    measures.main("modules")
    assert capsys.readouterr().out == "a.py\nb.py\n"


# -- mypy -----------------------------------------------------------------------------------------


def test_errors_of_mypy(tmp_path: Path) -> None:
    project = '[tool.mypy]\npackages = ["made"]\n'
    text = 'def typed(a: int) -> str:\n    return a\n\n\ndef untyped(a):\n    return 1 + ""\n'
    make(tmp_path, {"pyproject.toml": project, "made/__init__.py": "", "made/wrong.py": text})
    normal = measures.mypy_errors(tmp_path, measures.cache_folder(), is_strict=False)
    assert [error.partition(" error: ")[0] for error in normal] == ["made/wrong.py:2:"]
    strict = measures.mypy_errors(tmp_path, measures.cache_folder(), is_strict=True)
    assert {error.partition(" error: ")[0] for error in strict} == {"made/wrong.py:2:", "made/wrong.py:5:",
                                                                  "made/wrong.py:6:"}  # fmt: skip


def test_a_mypy_that_cannot_work_is_no_zero(tmp_path: Path) -> None:
    make(tmp_path, {"pyproject.toml": '[tool.mypy]\npackages = ["made"]\n', "made/__init__.py": "def broken(:\n"})
    with pytest.raises(RuntimeError, match=r"made/__init__\.py:1"):
        measures.mypy_errors(tmp_path, measures.cache_folder(), is_strict=False)


# -- files ----------------------------------------------------------------------------------------


def test_modules_and_their_names(package: Path) -> None:
    make(package, {"a.py": "", "b/__init__.py": "", "b/a.py": "", "b/conftest.py": "", "conftest.py": "", "a.txt": ""})
    files = ["__init__.py", "a.py", "b/__init__.py", "b/a.py", "b/conftest.py", "conftest.py"]
    assert measures.modules(package) == files
    assert measures.names_twice(package) == ["a.py"]


def test_lines_of_files(package: Path) -> None:
    make(package, {"a.py": "x = 1\n", "b/c.py": "x = 1\n" * 3, "d.py": "x = 1\n" * 4})
    assert measures.long_files(package, most=3) == ["d.py"]
    assert measures.median_lines(package) == 3
    assert measures.largest_files(package)[:2] == [("d.py", 4), ("b/c.py", 3)]


def test_modules_without_tests(package: Path, tmp_path: Path) -> None:
    make(package, {"top.py": "", "a/__init__.py": "", "a/x.py": "", "a/y.py": "", "a/b/z.py": "", "a/b/w.py": ""})
    names = ("unit/test_top.py", "integration/a/test_x.py", "unit/test_y.py", "unit/a/b/test_z.py", "unit/b/test_w.py")
    tests = make(tmp_path / "tests", dict.fromkeys(names, ""))
    assert measures.missing_tests(package, tests) == ["a/b/w.py", "a/y.py"]


def test_places_kept_from_the_formatter(package: Path) -> None:
    make(package, {"a.py": "a = [1,2]  # fmt: skip\n# fmt: off\nb = '# fmt: skip'\n# fmt: on\n#fmt:skip, why not\n"})
    assert measures.unformatted_places(package) == ["a.py:1", "a.py:2", "a.py:5"]


# -- code -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "def f(a: dict): ...",
        "def f(a: dict[str, int]): ...",
        "def f(*, a: dict | None = None): ...",
        "def f(a: 'None | dict[str, object]', /): ...",
        "async def f(a: int, b: dict): ...",
        "class A:\n    def f(self, a: dict): ...",
        "class A:\n    class B:\n        def f(self, a: dict): ...",
        "if True:\n    def f(a: dict): ...",
    ],
)
def test_what_takes_a_dict(package: Path, text: str) -> None:
    make(package, {"a.py": text})
    assert len(measures.dict_takers(package)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "def f(a): ...",
        "def f(a: list[dict]): ...",
        "def f(a: int) -> dict: ...",
        "def _f(a: dict): ...",
        "def f():\n    def g(a: dict): ...",
        "class _A:\n    def f(self, a: dict): ...",
        "class A:\n    def _f(self, a: dict): ...",
        "class A:\n    def __init__(self, a: dict): ...",
    ],
)
def test_what_takes_no_dict_or_is_not_public(package: Path, text: str) -> None:
    make(package, {"a.py": text})
    assert measures.dict_takers(package) == []


def test_a_method_is_named_with_its_class(package: Path) -> None:
    make(package, {"b/a.py": "\nclass A:\n    def f(self, a: dict): ...\n"})
    assert measures.dict_takers(package) == ["b/a.py:3 A.f"]


def test_strings_as_keys(package: Path) -> None:
    text = """
        x["a"] = y["b"]["c"]
        del x["d"]
        f"{x['e']}"
        x[0], x[name], x[:"f"], x.get("g")
        def f(a: Literal["h"], b: typing.Literal["i"]): ...
        """
    make(package, {"a.py": text})
    found = ["a.py:2 x['a']", "a.py:2 y['b']", "a.py:2 y['b']['c']", "a.py:3 x['d']", "a.py:4 x['e']"]
    assert measures.string_keys(package) == found


def test_imports_inside_functions(package: Path) -> None:
    text = """
        import early
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import kind
        else:
            import other
        try:
            import perhaps
        except ImportError:
            pass
        class A:
            import attribute
            def f(self):
                import a
                if TYPE_CHECKING:
                    import late_kind
                async def g():
                    from . import b, c
        """
    make(package, {"a.py": text})
    assert measures.late_imports(package) == ["a.py:15 import a", "a.py:19 from . import b, c"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", 0),
        ('"""One.\n\nTwo.\n"""\n\n# three\n', 0),
        ('"""One.""" "Two."\nx = 1  # three\n', 1),
        ('def f():\n    """One.\n\n    Two."""\n    return 1\n', 2),
        ('class A:\n    "One."\n\n    x = 1\n    "Two."\n', 3),
        ('x = """One.\n\nTwo.\n"""\n', 4),
        ("x = [\n    1,\n\n    # two\n]\n", 3),
        ('async def f(): "One."\n', 1),
        ('def f():\n    f"{1}"\n', 2),
    ],
)
def test_lines_of_code(text: str, lines: int) -> None:
    assert measures.code_lines(text) == lines


# -- what an import loads -------------------------------------------------------------------------


@pytest.fixture
def rooms(package: Path) -> Path:
    """Modules that need each other in all the ways that there are."""
    files = {
        "start.py": "from .near import first\nfrom . import second\n\ndef f():\n    from .far.late import x\n",
        "near/__init__.py": "from ..third import THREE\n",
        "near/first.py": "from __future__ import annotations\nimport json\nimport made.fourth\n",
        "second.py": "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from . import kind\n",
        "third.py": "THREE = 3\n",
        "fourth.py": "from made import third\n",
        "far/__init__.py": "from .beside import x\n",
        "far/beside.py": "x = 1\n",
        "far/late.py": "from ..fifth import x\n",
        "fifth.py": "x = 1\n",
        "kind.py": "",
        "alone.py": "from . import start\n",
    }
    return make(package, files)


def test_what_is_loaded(rooms: Path) -> None:
    before = measures.modules(rooms)
    loaded = measures.loaded_modules(rooms, "made.start")
    assert loaded == ["fourth.py", "near/first.py", "second.py", "start.py", "third.py"]
    assert measures.lines_of(rooms, loaded) == len(("fourth", *"fir", *"sec", *"star", "third"))
    assert [path for path in rooms.rglob("*") if path.suffix == ".pyc"] == [] and measures.modules(rooms) == before


def test_what_can_be_reached(rooms: Path) -> None:
    loaded = set(measures.loaded_modules(rooms, "made.start"))
    assert set(measures.reached_modules(rooms, "made.start")) == loaded | {"far/beside.py", "far/late.py", "fifth.py"}


def test_an_entry_that_is_not_there_is_no_zero(package: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        measures.loaded_modules(package, "made.gone")
    with pytest.raises(KeyError):
        measures.reached_modules(package, "made.gone")
