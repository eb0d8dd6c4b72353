"""Records: every field has a value, nothing else has one, and what is made stays as it is."""

import pytest

from agentctl.core.record import Record


class Point(Record):
    """A point."""

    x: int
    y: int = 0


class Named(Point):
    """A point with a name."""

    name: str = "origin"


def test_a_field_without_a_value_has_its_default():
    assert (Point(x=1).x, Point(x=1).y, Point(x=1, y=2).y) == (1, 0, 2)


def test_the_fields_of_a_parent_come_first():
    assert list(Named(x=1).to_dict()) == ["x", "y", "name"] and Point(x=1).to_dict() == {"x": 1, "y": 0}


@pytest.mark.parametrize(("values", "told"), [({}, "needs x"), ({"x": 1, "z": 2}, "has no field z")])
def test_a_field_too_few_or_too_many_is_an_error(values, told):
    with pytest.raises(TypeError, match=told):
        Point(**values)


def test_it_is_frozen_and_a_changed_one_is_another():
    point = Point(x=1)
    with pytest.raises(AttributeError, match=r"Point\.x is frozen"):
        point.x = 2
    assert (point.x, point.replace(x=2)) == (1, Point(x=2))
    with pytest.raises(TypeError, match="has no field z"):
        point.replace(z=1)


def test_those_of_one_kind_with_the_same_values_are_equal():
    assert Point(x=1) == Point(x=1, y=0) and Point(x=1) != Point(x=2) and Point(x=1) != Named(x=1)


def test_what_comes_from_outside_may_have_fields_that_nobody_knows():
    assert Point.of({"x": 1, "since": "2.0"}) == Point(x=1)
    with pytest.raises(TypeError, match="needs x"):
        Point.of({"y": 1})


def test_it_reads_as_it_is_made():
    assert repr(Named(x=1)) == "Named(x=1, y=0, name='origin')"
