"""The fields of results.json, for people, from the models that write it."""

from typing import Any, get_args

from pydantic import BaseModel


def describe_fields(kind: type[BaseModel]) -> str:
    """A line for each field, dotted, with its type and meaning; what repeats is described once."""
    return "\n".join(_lines(kind, "", set())) + "\n"


def _lines(kind: type[BaseModel], prefix: str, seen: set[type[BaseModel]]) -> list[str]:
    lines = []
    for name, field in kind.model_fields.items():
        inner = _model_in(field.annotation)
        many = "[]" if getattr(field.annotation, "__origin__", None) is list else ""
        shape = "" if inner is None else f" ({_title(inner)}{', as above' if inner in seen else ''})"
        lines.append(f"{prefix}{name}{many}{shape}: {field.description}")
        if inner is not None and inner not in seen:
            seen.add(inner)
            lines += _lines(inner, f"{prefix}{name}{many}.", seen)
    return lines


def _title(kind: type[BaseModel]) -> str:
    return kind.__name__.partition("[")[0]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation names, alone, as an option or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
