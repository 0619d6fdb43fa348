"""Dataclasses of ours as plain data (JSON) and back, checked by their own annotations.

    address, network   text           enum          its value        dataclass   object, a key for each field
    octets             hex            tuple, list   array            of a union  [class name, object]
    infinity           "inf"          mapping       array of pairs   NamedTuple  array

What comes back is built by the constructors of its classes from fields that are all there and all of their kind, or
not at all: nothing that was written by another version is taken for what it is not.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from math import isinf
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from router.errors import RouterError

ADDRESSES: dict[Any, Callable[[str], Any]] = {
    IPv4Address: IPv4Address,
    IPv6Address: IPv6Address,
    IPv4Network: IPv4Network,
    IPv6Network: IPv6Network,
}
UNIONS: dict[frozenset[Any], Callable[[str], Any]] = {
    frozenset((IPv4Address, IPv6Address)): ip_address,
    frozenset((IPv4Network, IPv6Network)): ip_network,
}


class NotPlain(RouterError):  # noqa: N818 - the name says what it is not
    """Data that is not what its type says."""


def to_plain(kind: Any, value: Any) -> Any:
    """A value of that type, as its annotation says, in what JSON has."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union_to_plain(arguments, value)
    if origin in (tuple, list):
        return [to_plain(arguments[0], item) for item in value] if _is_long(kind) else _row_to_plain(arguments, value)
    if origin in (dict, Mapping):
        return [[to_plain(arguments[0], key), to_plain(arguments[1], item)] for key, item in value.items()]
    if _is_named_row(kind):
        return _row_to_plain(tuple(get_type_hints(kind).values()), value)
    if is_dataclass(origin or kind):
        hints = _hints(kind)
        return {name: to_plain(hint, getattr(value, name)) for name, hint in hints.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and isinf(value):
        return str(value)
    return str(value) if kind in ADDRESSES else value


def from_plain(kind: Any, data: Any, where: str = "state") -> Any:
    """The value again. Raises NotPlain, which names the place."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in (Union, types.UnionType):
        return _union_from_plain(arguments, data, where)
    if origin in (tuple, list):
        return origin(_items(kind, arguments, _expect(data, list, where), where))
    if origin in (dict, Mapping):
        pairs = [_row(arguments, item, f"{where}[{at}]") for at, item in enumerate(_expect(data, list, where))]
        return dict(pairs)
    if _is_named_row(kind):
        return kind(*_row(tuple(get_type_hints(kind).values()), data, where))
    if is_dataclass(origin or kind):
        return _object(kind, _expect(data, dict, where), where)
    try:
        return _single(kind, data)
    except (ValueError, TypeError):
        raise NotPlain(f"{where}: expected {getattr(kind, '__name__', kind)}, found {str(data)[:40]!r}") from None


def _single(kind: Any, data: Any) -> Any:
    """Raises ValueError, TypeError."""
    if kind in ADDRESSES:
        return ADDRESSES[kind](_text(data))
    if kind is bytes:
        return bytes.fromhex(_text(data))
    if kind is float:
        return float(data) if data in ("inf", "-inf") else _number(data)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    if kind in (int, str, bool, types.NoneType) and type(data) is kind:
        return data
    raise TypeError


def _number(data: Any) -> float:
    if type(data) not in (int, float):
        raise TypeError
    return float(data)


def _text(data: Any) -> str:
    if type(data) is not str:
        raise TypeError
    return data


def _object(kind: Any, data: dict[str, Any], where: str) -> Any:
    hints = _hints(kind)
    if odd := sorted(hints.keys() ^ data.keys()):
        raise NotPlain(f"{where}: {_name(kind)} of another version: {', '.join(odd)}")
    make = get_origin(kind) or kind
    return make(**{name: from_plain(hint, data[name], f"{where}.{name}") for name, hint in hints.items()})


def _items(kind: Any, arguments: tuple[Any, ...], data: list[Any], where: str) -> list[Any]:
    if _is_long(kind):
        return [from_plain(arguments[0], item, f"{where}[{at}]") for at, item in enumerate(data)]
    return _row(arguments, data, where)


def _row(arguments: tuple[Any, ...], data: Any, where: str) -> list[Any]:
    if len(_expect(data, list, where)) != len(arguments):
        raise NotPlain(f"{where}: expected {len(arguments)} items, found {len(data)}")
    places = (f"{where}[{at}]" for at in range(len(data)))
    return [from_plain(*each) for each in zip(arguments, data, places, strict=True)]


def _row_to_plain(arguments: tuple[Any, ...], value: Any) -> list[Any]:
    return [to_plain(hint, item) for hint, item in zip(arguments, value, strict=True)]


def _is_long(kind: Any) -> bool:
    """Any number of items of one type, other than a row of several."""
    arguments = get_args(kind)
    return get_origin(kind) is list or arguments[-1] is Ellipsis


def _union_to_plain(arguments: tuple[Any, ...], value: Any) -> Any:
    if value is None:
        return None
    kinds = [kind for kind in arguments if kind is not types.NoneType]
    if frozenset(kinds) in UNIONS:
        return str(value)
    if len(kinds) == 1:
        return to_plain(kinds[0], value)
    kind = next(each for each in kinds if _is_of(each, value))
    return [_name(kind), to_plain(kind, value)]


def _union_from_plain(arguments: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and types.NoneType in arguments:
        return None
    kinds = [kind for kind in arguments if kind is not types.NoneType]
    if len(kinds) == 1:
        return from_plain(kinds[0], data, where)
    if make := UNIONS.get(frozenset(kinds)):
        try:
            return make(_text(data))
        except (ValueError, TypeError):
            raise NotPlain(f"{where}: expected an address, found {str(data)[:40]!r}") from None
    name, body = _row((str, Any), data, where)
    kind = next((each for each in kinds if _name(each) == name), None)
    if kind is None:
        raise NotPlain(f"{where}: {name[:40]!r} is none of {', '.join(map(_name, kinds))}")
    return from_plain(kind, body, where)


def _expect(data: Any, kind: type, where: str) -> Any:
    if type(data) is not kind:
        raise NotPlain(f"{where}: expected {kind.__name__}, found {str(data)[:40]!r}")
    return data


def _is_named_row(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple)


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a value is of this class; of a generic one, as its fields say."""
    if type(value) is not (get_origin(kind) or kind):
        return False
    return not get_args(kind) or all(isinstance(getattr(value, name), hint) for name, hint in _hints(kind).items())


def _name(kind: Any) -> str:
    arguments = ", ".join(map(_name, get_args(kind)))
    return f"{kind.__name__}[{arguments}]" if arguments else str(kind.__name__)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Field -> its type, of a dataclass; a generic one is known with what it is of: `Range[int]`."""
    plain = get_origin(kind) or kind
    given = dict(zip(getattr(plain, "__parameters__", ()), get_args(kind), strict=True))
    hints = get_type_hints(plain)
    return {field.name: _filled(hints[field.name], given) for field in fields(plain) if field.init}


def _filled(hint: Any, given: Mapping[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return given[hint]
    variables = () if isinstance(hint, type) else getattr(hint, "__parameters__", ())
    return hint[tuple(given[each] for each in variables)] if variables else hint
