"""Values as users write them, in a notebook or on the command line, read as what they are meant to be."""

from __future__ import annotations

import ast
import contextlib
from types import NoneType, UnionType
from typing import Any, get_args

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from allkit import AllkitError

SETTINGS = {
    "split": str | None, "hold_out": str, "fold": int | None, "allow_leak": bool | None, "weights": str | None,
    "alpha": float | None, "image_size": int | None, "crop": int | None, "epochs": int | None,
    "batch_size": int | None, "learning_rate": float | None,
}  # fmt: skip
"""What a notebook's `settings` may hold, with its kind: how data are divided, and single fields of a profile."""

_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}


def as_kind(name: str, value: Any, kind: type | UnionType) -> Any:
    """Return a value, or the text of one, as `kind`: bool, int, float or str, perhaps "| None".

    "no" is False; "8.0" and "1e1" are whole numbers; the words None and none are None. Raises AllkitError, with the
    parameter's name, for what cannot be meant.
    """
    kinds = [one for one in get_args(kind) or (kind,) if one is not NoneType]
    optional = NoneType in get_args(kind)
    if value is None or (isinstance(value, str) and value.strip() in ("None", "none")):
        if optional:
            return None
        raise AllkitError(_sentence(name, value, kinds, optional))
    if isinstance(value, bool) and bool not in kinds:
        raise AllkitError(_sentence(name, value, kinds, optional))
    for one in kinds:
        with contextlib.suppress(ValidationError, ValueError, TypeError, OverflowError):
            if one is str:
                return str(value)
            if one is int:
                number = float(value)
                return int(value) if isinstance(value, int) else int(number) if number.is_integer() else _refuse()
            return TypeAdapter(FiniteFloat if one is float else one).validate_python(value)
    raise AllkitError(_sentence(name, value, kinds, optional))


def as_any(text: Any) -> Any:
    """Return a text as the bool or number that it looks like, else as it is; for a parameter of no declared kind."""
    for kind in (bool, int, float) if isinstance(text, str) else ():
        if kind is not bool or text.lower() in ("true", "false"):
            with contextlib.suppress(AllkitError):
                return as_kind("", text, kind)
    return text


def _refuse() -> None:
    raise ValueError


def _sentence(name: str, value: Any, kinds: list[type], optional: bool) -> str:
    words = [_WORDS.get(one, one.__name__) for one in kinds] + (["None"] if optional else [])
    return f"the parameter {name} is {value!r}; it must be {' or '.join(words)}."


def kind_of(annotation: str) -> type | UnionType | None:
    """Return the kind that an annotation names, such as "int | None", quoted or not; None where it is of no use."""
    known = {"bool": bool, "int": int, "float": float, "str": str, "None": NoneType}

    def read(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return read(node.left) | read(node.right)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return read(ast.parse(node.value, mode="eval").body)
        return known[ast.unparse(node)]

    try:
        return read(ast.parse(annotation, mode="eval").body)
    except (KeyError, SyntaxError):
        return None


def read_parameters(source: str) -> dict[str, tuple[Any, type | UnionType | None]]:
    """Return the parameters that a cell declares: name -> default value and kind (None: any).

    The kind is that of the annotation, or else of the default.
    """
    found = {}
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if value is None or not isinstance(targets[0], ast.Name):
            continue
        with contextlib.suppress(ValueError):
            default = ast.literal_eval(value)
            annotation = getattr(node, "annotation", None)
            kind = kind_of(ast.unparse(annotation)) if annotation else None
            if kind is None and type(default) in _WORDS:
                kind = type(default)
            found[targets[0].id] = (default, kind)
    return found
