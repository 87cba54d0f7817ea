"""Client stubs from anything that a node may tell of itself."""

from __future__ import annotations

import ast
import keyword
import types
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helianthus.cli.described import Described, Method, MethodParameter
from helianthus.cli.stub import StubImpossible, write_stub
from helianthus.cli.stub_names import Imports, class_name, identifier, is_usable
from helianthus.cli.stub_types import StubTypes, default_fits
from helianthus.protocols.rpc import Flow
from helianthus.services.rpc.service import declared_method


def parameter(name: str, type_text: str = "int", **more: Any) -> MethodParameter:
    known = {"required": True, "variadic": False, "positional": True, "keyword": True, "default": None}
    return MethodParameter(name=name, type=type_text, **(known | more))


def described(
    *params: MethodParameter,
    name: str = "s.m",
    service: str = "s",
    doc: str = "",
    flow: Flow = Flow.UNARY,
    returned: str = "int",
    items: str | None = None,
    keywords: str | None = None,
) -> Described:
    method = Method(name, doc, flow, list(params), keywords, items, returned)
    return Described(service, doc, {name: method}, {})


def loaded(text: str) -> types.ModuleType:
    module = types.ModuleType("stub")
    exec(compile(text, "stub.py", "exec"), module.__dict__)
    return module


def signature(service: Described) -> str:
    """The async method of a stub, in one line and without the call's options."""
    tree = ast.parse(write_stub(service))
    cls = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    function = next(n for n in cls.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    text = f"{ast.unparse(function.args)} -> {ast.unparse(function.returns) if function.returns else ''}"
    for option in (
        "timeout: float | None=None",
        "cancel: CancelToken | None=None",
        "meta: dict[str, Any] | None=None",
    ):
        text = text.replace(f", {option}", "")
    return text.removeprefix("self").removeprefix(", ")


# -- parameters -------------------------------------------------------------------------------------------


def test_parameters() -> None:
    by_name = {"positional": False}
    optional = {"required": False}
    by_position = {"keyword": False}
    assert signature(described(parameter("a"), parameter("b", default="1", **optional))) == (
        "a: int, b: int=1, * -> int"
    )
    assert signature(described(parameter("a"), parameter("b", **by_name))) == "a: int, *, b: int -> int"
    assert signature(
        described(parameter("rest", variadic=True, positional=False, keyword=False, **optional))
    ) == ("*rest: int -> int")
    assert (
        signature(described(parameter("a", **by_position), parameter("b"))) == "a: int, b: int, /, * -> int"
    )
    assert signature(described(keywords="str")) == "*, **keywords: str -> int"
    # the call's own options, and names that are none, can only be given by position
    assert signature(described(parameter("timeout"), parameter("a"))) == "timeout_: int, a: int, /, * -> int"
    assert (
        signature(described(parameter("class"), parameter("class")))
        == "class_: int, class__: int, /, * -> int"
    )
    assert signature(described(parameter("self"), parameter("__x"))) == "self_: int, x: int, /, * -> int"
    assert signature(described(parameter("\ufb01"))) == "fi: int, /, * -> int"  # the ligature is another name
    # what Python does not allow
    assert signature(described(parameter("a", **optional), parameter("b"))) == "a: int, b: int, * -> int"


def test_what_cannot_be_given_is_left_out() -> None:
    by_name = {"positional": False}
    text = write_stub(described(parameter("a", keyword=False), parameter("b", required=False, **by_name)))
    assert "# without 'b'" in text
    text = write_stub(described(parameter("a", keyword=False), parameter("b", **by_name)))
    assert "# 'm' is left out: 'b' cannot be given" in text
    assert "def m" not in text
    assert "'other.m' is left out" in write_stub(described(name="other.m"))


@pytest.mark.parametrize(
    ("default", "type_text", "written"),
    [
        ("1", "int", "1"),
        ("1", "float", "1"),
        ("1", "str", "_DEFAULT"),
        ("None", "int", "_DEFAULT"),
        ("None", "int | None", "None"),
        ("None", "Optional[int]", "None"),
        ("'b'", "Literal['a', 'b']", "'b'"),
        ("'c'", "Literal['a', 'b']", "_DEFAULT"),
        ("True", "Any", "True"),
        ("[]", "list[int]", "_DEFAULT"),
        ("__import__('os')", "Any", "_DEFAULT"),
        ("1 +", "int", "_DEFAULT"),
        ("9" * 5000, "int", "_DEFAULT"),
        (None, "int", "_DEFAULT"),
    ],
)
def test_defaults(default: str | None, type_text: str, written: str) -> None:
    text = signature(described(parameter("a", type_text, default=default, required=False)))
    assert f"={written}," in text


# -- types ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "as_given", "as_taken"),
    [
        ("int", "int", "int"),
        ("None", "None", "None"),
        ("Optional[int]", "int | None", "int | None"),
        ("Union[int, str | None]", "int | str | None", "int | str | None"),
        ("typing.Optional[typing.List[int]]", "list[int] | None", "list[int] | None"),
        ("list", "list[Any]", "list[Any]"),
        ("tuple", "Sequence[Any]", "list[Any]"),
        ("tuple[int, str, int]", "tuple[int, str, int]", "list[int | str]"),
        ("tuple[int, ...]", "Sequence[int]", "list[int]"),
        ("tuple[()]", "tuple[()]", "list[Any]"),
        ("set[str]", "Sequence[str]", "list[str]"),
        ("Mapping[str, list[int]]", "Mapping[str, list[int]]", "dict[str, list[int]]"),
        ("Dict[str, Dict[int, bytes]]", "dict[str, dict[int, bytes]]", "dict[str, dict[int, bytes]]"),
        ("bytearray", "bytes", "bytes"),
        ("datetime | date | time | timedelta | UUID | Decimal",) * 3,
        ("datetime.datetime", "datetime", "datetime"),
        (
            "Literal['a\\n', -1, True, None]",
            "Literal['a\\n', -1, True, None]",
            "Literal['a\\n', -1, True, None]",
        ),
        ("Literal[Any]", "Any", "Any"),
        ("Annotated[int, 5]", "int", "int"),
        ("shop.Article", "Any", "Any"),
        ("list[shop.Article]", "list[Any]", "list[Any]"),
        ("f.<locals>.Article", "Any", "Any"),
        ("complex", "Any", "Any"),
        ("int[str]", "Any", "Any"),
        ("list[int, str]", "Any", "Any"),
        ("dict[int]", "Any", "Any"),
        ("Union[()]", "Any", "Any"),
        ("Annotated[()]", "Any", "Any"),
        ("Callable[[int], str]", "Any", "Any"),
        ("'int'", "Any", "Any"),
        ("...", "Any", "Any"),
        ("", "Any", "Any"),
        ("print(1)", "Any", "Any"),
        ("list[print(1)]", "list[Any]", "list[Any]"),
        ("int\nimport os", "Any", "Any"),
        ("\x00", "Any", "Any"),
        ("list[" * 150 + "int" + "]" * 150, "Any", "Any"),
        (" | ".join(["int"] * 200), "int", "int"),
        (" | ".join(["int"] * 5000), "Any", "Any"),
    ],
    ids=lambda text: text[:40],
)
def test_types(told: str, as_given: str, as_taken: str) -> None:
    types = StubTypes(Imports(()))
    assert types.given(told) == as_given or len(told) > 700
    assert types.taken(told) == as_taken or len(told) > 700
    ast.parse(types.given(told))


def test_types_that_are_not_known_are_told() -> None:
    types = StubTypes(Imports(()))
    types.given("dict[str, shop.Article | list[Part]]")
    assert list(types.unknown) == ["shop.Article", "Part"]


def test_methods_do_not_hide_the_names_of_types() -> None:
    service = described(parameter("a", "list[Any]"), name="s.list", returned="list[int]")
    any_method = Method("s.Any", "", Flow.UNARY, [], None, None, "None")
    text = write_stub(Described("s", "", service.methods | {"s.Any": any_method}, {}))
    assert "from builtins import list as _list" in text
    assert "a: _list[_Any]" in text
    assert "-> _list[int]" in text


# -- streams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "returned", "kind"),
    [
        (Flow.FROM_CALLEE, "AsyncIterator[tuple[int, str]]", "ServerStream[list[int | str]]"),
        (Flow.FROM_CALLEE, "AsyncGenerator[int, None]", "ServerStream[int]"),
        (Flow.FROM_CALLEE, "Any", "ServerStream[Any]"),
        (Flow.FROM_CALLER, "float", "ClientStream[set_, float]"),
        (Flow.BOTH, "AsyncIterator[int]", "BidirectionalStream[set_, int]"),
    ],
)
def test_streams(flow: Flow, returned: str, kind: str) -> None:
    text = write_stub(described(flow=flow, returned=returned, items="set[str]"))
    expected = kind.replace("set_", "Sequence[str]")
    assert f"    ) -> {expected}:" in text
    assert f"    ) -> Blocking{expected}:" in text
    assert "async def" not in text
    assert declared_method(loaded(text).S, "m") == ("m", True, ())


# -- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("user_store", "UserStore"),
        ("calculator", "Calculator"),
        ("a.b-c", "ABC"),
        ("", "Service"),
        ("1st", "Service_1st"),
        ("True", "True_"),
        ('"); import os', "ImportOs"),
        ("sonnenblumen_größe", "SonnenblumenGröße"),
        ("none", "None_"),
    ],
)
def test_class_names(service: str, name: str) -> None:
    assert class_name(service) == name


@given(st.text())
@example("_" * 100)
@example("x" * 1000)
@example("\u00aa\u0345")
def test_identifiers(text: str) -> None:
    assert is_usable(identifier(text, "method"))
    assert is_usable(class_name(text))


def test_methods_keep_their_served_names() -> None:
    names = ["class", "class_", "a.b", "a b", "_x", "name", "ok", "\ufb01", "x" * 500, "", "mro", "\n#"]
    methods = {f"s.{n}": Method(f"s.{n}", "", Flow.UNARY, [], None, None, "int") for n in names}
    stub = loaded(write_stub(Described("s", "", methods, {})))
    served = {
        declared_method(stub.S, attribute)[0]
        for attribute in vars(stub.S)
        if attribute[0] not in "_" and attribute != "name"
    }
    assert served == set(names) - {""}
    assert declared_method(stub.S, "class_")[0] == "class_"  # its own name comes first
    assert declared_method(stub.S, "ok")[0] == "ok"


# -- a node that means harm -------------------------------------------------------------------------------

NASTY = st.sampled_from(
    [
        '"""\nimport os\n"""',
        '\\"""\nBOOM = 1\n',
        '"' * 7,
        "\\",
        "a\\",
        "x\nBOOM = 1",
        "x\rBOOM = 1",
        "x\x0cBOOM = 1",
        "\x00",
        "\u2028BOOM",
        "# type: ignore",
        "# -*- coding: utf-7 -*-",
        "'] = BOOM",
        "{BOOM}",
        "BOOM()",
        "list[BOOM()]",
        "Literal['\\'] | BOOM()]",
        "int = BOOM(), b: int",
        "\N{RIGHT-TO-LEFT OVERRIDE}x",
        "a: int = 1, /",
        "__class__",
        "None",
        "print",
    ]
)
TEXT = NASTY | st.text(max_size=20) | st.sampled_from(["a", "m", "x_y", *keyword.kwlist])
TYPE = NASTY | st.sampled_from(["int", "list[int]", "AsyncIterator[int]", "None"]) | st.text(max_size=20)
PARAMETERS = st.lists(
    st.builds(
        MethodParameter,
        name=TEXT,
        type=TYPE,
        required=st.booleans(),
        variadic=st.booleans(),
        positional=st.booleans(),
        keyword=st.booleans(),
        default=st.none() | TEXT | st.sampled_from(["1", "'a'", "None"]),
    ),
    max_size=5,
)


@st.composite
def services(draw: st.DrawFn) -> Described:
    name = draw(TEXT)
    methods = draw(
        st.lists(
            st.builds(
                Method,
                name=TEXT.map(lambda method: f"{name}.{method}") | TEXT,
                doc=TEXT,
                flow=st.sampled_from(list(map(Flow, range(4)))),
                params=PARAMETERS,
                keywords=st.none() | TYPE,
                items=st.none() | TYPE,
                returned=TYPE,
            ),
            max_size=4,
        )
    )
    return Described(name, draw(TEXT), {method.name: method for method in methods}, {})


def assert_harmless(text: str) -> None:
    """Nothing runs when the module is imported but imports of three packages and definitions."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom):
            assert node.module in (
                *("__future__", "builtins", "typing", "collections.abc", "datetime", "uuid", "decimal"),
                *("helianthus", "helianthus.stubs"),
            )
        elif isinstance(node, ast.ClassDef):
            assert [*node.decorator_list, *node.bases, *node.keywords] == []
            for inner in node.body:
                assert_harmless_member(inner)
        elif isinstance(node, ast.Assign):
            assert [ast.unparse(target) for target in node.targets] == ["__all__"]
            ast.literal_eval(node.value)
        elif isinstance(node, ast.AnnAssign):
            assert ast.unparse(node).endswith("_DEFAULT: Any = ...") or "_DEFAULT: _Any = ..." in ast.unparse(
                node
            )
        else:
            assert isinstance(node, ast.Expr)
            assert isinstance(node.value, ast.Constant)


def assert_harmless_member(node: ast.stmt) -> None:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for decorator in node.decorator_list:
            assert isinstance(decorator, ast.Call)
            assert ast.unparse(decorator.func) in ("method", "_method")
            assert all(isinstance(one.value, ast.Constant) for one in decorator.keywords)
            assert not decorator.args
        *doc, last = node.body
        assert isinstance(last, ast.Raise)
        assert all(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in doc)
        defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        assert all(
            ast.unparse(one) == "_DEFAULT" or ast.literal_eval(one) in (ast.literal_eval(one),)
            for one in defaults
        )
        for inner in ast.walk(node.args):
            assert not isinstance(inner, ast.Call | ast.Await | ast.NamedExpr | ast.Lambda)
    elif isinstance(node, ast.AnnAssign):
        assert ast.unparse(node.target) == "name"
        assert isinstance(node.value, ast.Constant)
    else:
        assert isinstance(node, ast.Expr)
        assert isinstance(node.value, ast.Constant)


@given(services())
@settings(max_examples=300, deadline=None)
def test_no_text_of_a_node_gets_to_run(service: Described) -> None:
    text = write_stub(service)
    assert_harmless(text)
    text.encode("utf-8")
    stub = loaded(text)
    assert set(stub.__all__) <= set(vars(stub))
    for line in text.splitlines():
        before, comment, after = line.partition("# ")
        if comment and not before.strip():
            assert "#" not in after


@given(NASTY | st.text(), NASTY | st.text())
def test_documentation_says_what_it_said(doc: str, more: str) -> None:
    said = f"{doc}\n{more}"
    stub = loaded(write_stub(described(doc=said)))
    kept = stub.S.m.__doc__ or ""
    assert kept.split() == said.split()


def test_what_cannot_be_parsed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helianthus.cli.stub.identifier", lambda name, fallback: "not an identifier")
    with pytest.raises(StubImpossible, match="cannot be written as Python"):
        write_stub(described())


def test_a_default_that_is_told_wrongly() -> None:
    assert not default_fits(1, "")
    assert not default_fits(1, "list[")
