"""What all values that are written as JSON have in common."""

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]


class Value(BaseModel):
    """The base of all values: frozen; keys of other versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)
