"""JSON without `json`: the same values, the same text, and the same refusals as the module of the standard library."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.core import fast_json
from kit import deadline
from ledger_builder import ROOT

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(VALUES)
def test_it_writes_what_json_writes_and_reads_it_back(value):
    text = fast_json.dumps(value)
    assert text == json.dumps(value)
    assert fast_json.loads(text) == value and fast_json.loads(f" \n{text}\t\r".encode()) == value


@given(st.text(alphabet='{}[]",:01.-eE+tfn \\u', max_size=20))
def test_it_takes_and_refuses_what_json_does(text):
    try:
        wanted = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            fast_json.loads(text)
    else:
        assert fast_json.loads(text) == wanted


@pytest.mark.parametrize("text", ["", " ", "{", "[1,]", "{'a': 1}", "1 2", "[1] x", '"\n"', b"\xff", "[" * 100_000])
def test_what_is_not_one_json_document_is_a_value_error(text):
    with pytest.raises(ValueError):
        fast_json.loads(text)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), [object()]])
def test_what_has_no_json_form_is_refused(value):
    with pytest.raises(TypeError, match="has no JSON form"):
        fast_json.dumps(value)


def test_an_interpreter_without_the_c_parts_gets_the_same():
    code = (
        f"import sys; sys.path.insert(0, {ROOT + '/watchdog'!r}); sys.modules['_json'] = None\n"
        "from agentctl.core import fast_json\n"
        "assert 'json' in sys.modules\n"
        'print(fast_json.dumps(fast_json.loads(\'{"a": [1, 2.5, null, "\\u00fc"]}\')))'
    )
    done = deadline.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout == '{"a": [1, 2.5, null, "\\u00fc"]}\n', done.stderr


def test_it_brings_in_neither_json_nor_re():
    code = f"import sys; sys.path.insert(0, {ROOT + '/watchdog'!r})\n"
    code += "from agentctl.core import fast_json; print({'json', 're', 'enum'} & set(sys.modules))"
    done = deadline.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
