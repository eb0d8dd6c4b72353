"""Records: frozen values with named, typed fields.

What `dataclasses` would give: importing that takes 20 ms, and the recovery process starts in 25.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as a type checker sees it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self, dataclass_transform
else:

    def dataclass_transform(**_):
        """Return a decorator that changes nothing: it is there for type checkers."""
        return lambda made: made


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """A frozen value; its fields are the class's annotations, a field's default is the class attribute."""

    _fields: tuple[str, ...] = ()  # in order; those of a parent come first

    def __init_subclass__(cls) -> None:
        own = tuple(name for name in cls.__annotations__ if not name.startswith("_") and name not in cls._fields)
        cls._fields = cls._fields + own

    def __init__(self, **values: object) -> None:
        """Take each field by its name; raise TypeError if one is unknown, or missing without a default."""
        if values.keys() - set(self._fields):
            unknown = ", ".join(sorted(values.keys() - set(self._fields)))
            raise TypeError(f"{type(self).__name__} has no field {unknown}")
        for name in self._fields:
            if name in values:
                self.__dict__[name] = values[name]
            elif not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} needs {name}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.to_dict() == self.to_dict()

    __hash__ = None  # type: ignore[assignment]  # a field may be a list

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._fields)})"

    def replace(self, **changes: object) -> Self:
        """Return the same with other values in some fields."""
        return type(self)(**{**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, object]:
        """Return the fields by name, in order."""
        return {name: getattr(self, name) for name in self._fields}

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Self:
        """Make one of what has come from outside, such as JSON: fields that nobody here knows are passed over."""
        return cls(**{name: value for name, value in values.items() if name in cls._fields})
