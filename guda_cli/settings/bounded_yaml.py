"""YAML of recipes: bounded before it is expanded, and numbers that know how they were written."""

from __future__ import annotations

import reprlib
from typing import Any

import yaml

from guda_cli.errors import RecipeError
from guda_cli.plain_text import printable, shorten

LARGEST = 1 << 20  # bytes of a recipe
MOST_VALUES = 300_000  # with what aliases stand for written out
_DIGITS = 400  # of a number: the largest float has 309
_SHOWN = 80  # characters of a value in a message


class WrittenInt(int):
    """A whole number, and its text: `007` is one group's name and `7` another's."""

    text: str


class WrittenFloat(float):
    """Likewise a fraction: `1.10`."""

    text: str


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` without dates, which no entry is: what looks like one is text."""

    def whole(self, node: yaml.ScalarNode) -> WrittenInt:
        """A whole number of bearable length."""
        text = self._number(node)
        found = WrittenInt(self.construct_yaml_int(node))
        found.text = text
        return found

    def fraction(self, node: yaml.ScalarNode) -> WrittenFloat:
        """Likewise a fraction."""
        text = self._number(node)
        found = WrittenFloat(self.construct_yaml_float(node))
        found.text = text
        return found

    def _number(self, node: yaml.ScalarNode) -> str:
        text = str(node.value)
        if len(text) > _DIGITS:
            why = f"a number of {len(text):,} digits"
            raise yaml.constructor.ConstructorError(None, None, why, node.start_mark)
        return text


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.fraction)
yaml.SafeDumper.add_representer(WrittenInt, yaml.SafeDumper.represent_int)
yaml.SafeDumper.add_representer(WrittenFloat, yaml.SafeDumper.represent_float)


def load(text: str, what: str) -> Any:
    """The value of a YAML text; RecipeError, beginning with `what`, where it is none or without bounds.

    Aliases are counted as what they stand for before anything is built of them.
    """
    if len(text) > LARGEST:
        raise RecipeError(f"{what} is too long", why=f"it has over {LARGEST:,} characters")
    loader = _Loader("")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        size = _size(node, {})
        if size > MOST_VALUES:
            raise RecipeError(
                f"{what} is too large",
                why=f"with its aliases written out it has over {MOST_VALUES:,} values",
                fix="write out what is meant, without aliases of aliases",
            )
        return loader.construct_document(node)
    except yaml.YAMLError as err:
        raise RecipeError(f"{what} is not valid YAML", why=_why(err)) from None
    except RecursionError:
        raise RecipeError(f"{what} is nested too deeply", why=_near(loader)) from None
    except (ValueError, OverflowError) as err:  # of a tag: !!int x
        raise RecipeError(f"{what} has a value that cannot be read", why=f"{err}; {_near(loader)}") from None
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values of a node with its aliases written out, at most a little over `MOST_VALUES`.

    RecursionError where a node is within itself.
    """
    if id(node) in known:
        size = known[id(node)]
        if not size:
            raise RecursionError
        return size
    known[id(node)] = size = 0
    if isinstance(node, yaml.MappingNode):
        _refuse_twice(node)
    parts = node.value if isinstance(node, (yaml.SequenceNode, yaml.MappingNode)) else ()
    for part in parts:
        size += sum(_size(each, known) for each in part) if isinstance(part, tuple) else _size(part, known)
    known[id(node)] = min(size + 1, MOST_VALUES + 1)
    return known[id(node)]


def _refuse_twice(node: yaml.MappingNode) -> None:
    """A YAMLError where a key stands in a mapping twice: the last one would count, and nobody be told."""
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in seen:
            why = f"{shorten(printable(key.value), _SHOWN)} stands there twice"
            raise yaml.constructor.ConstructorError(None, None, why, key.start_mark)
        seen.add(key.value)


def _why(err: yaml.YAMLError) -> str:
    if isinstance(err, yaml.MarkedYAMLError) and err.problem:
        mark = err.problem_mark or err.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return f"{place}{', '.join(filter(None, (err.problem, err.context)))}"
    return str(err)


def _near(loader: yaml.SafeLoader) -> str:
    mark = loader.get_mark()
    return f"near line {mark.line + 1}, column {mark.column + 1}"


class _Shown(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return int.__repr__(x) if x.bit_length() < 256 else f"a number of {x.bit_length():,} bits"

    repr_WrittenInt = repr_int  # noqa: N815 - reprlib goes by the names of types

    def repr_WrittenFloat(self, x: float, level: int) -> str:  # noqa: N802
        return float.__repr__(x)


def shown(value: Any) -> str:
    """A value in a message: as Python writes it, in few characters."""
    found = _Shown()
    found.maxstring = found.maxother = _SHOWN - 10
    return shorten(printable(found.repr(value)), _SHOWN)
