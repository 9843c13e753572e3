"""JSON in and out of the API: bodies that are checked, rows as they are shown."""

from __future__ import annotations

from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from jupyter_agent.errors import InvalidInput
from jupyter_agent.state import RunRow

HIDDEN = ("fileid", "folder", "pid", "pid_started", "reply", "tag")
"""What of a row is the agent's own business."""


LONGEST_PATH = 4096
MOST_TEXT = 1_000_000
"""Characters of a text that says what an environment is to hold."""

PlatformName = Annotated[str, Field(pattern=r"^[a-z]+-[a-z0-9]+$", max_length=40)]
Requirement = Annotated[str, Field(min_length=1, max_length=LONGEST_PATH)]


class Body(BaseModel):
    """A request's body; unknown fields are refused, so that a typing error does not pass for a wish."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises ``InvalidInput`` with one sentence."""
        try:
            return cls.model_validate_json(data or b"{}")
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"]) or "the body"
            told = fault["msg"].removeprefix("Value error, ")
            raise InvalidInput(f"The request cannot be used: {where}: {told}.") from error


class PublishBody(Body):
    """``POST packages``: ``path`` is a package's folder on the agent's machine."""

    path: str


class NoBody(Body):
    """Of a request that needs none; ``{}`` is none, too."""


class TestBody(Body):
    """``POST agents/{slug}/packages/{id}/testrun``."""

    kill_after_s: float = Field(default=10, gt=0, le=3600, allow_inf_nan=False)


class ParametersBody(Body):
    """Of a run, wherever; ``parameters_yaml`` holds texts that are read as YAML scalars."""

    parameters: dict[str, Any] = Field(default_factory=dict)
    parameters_yaml: dict[str, str] = Field(default_factory=dict)
    _all: dict[str, Any] = PrivateAttr(default_factory=dict)

    def model_post_init(self, _context: object) -> None:
        """Read the texts, which takes its time, while the body is parsed (called by pydantic)."""
        self._all = {**self.parameters, **{name: yaml_scalar(text) for name, text in self.parameters_yaml.items()}}

    def all_parameters(self) -> dict[str, Any]:
        """Both kinds; the texts win."""
        return self._all


class RemoteRunBody(ParametersBody):
    """``POST agents/{slug}/runs``: the protocol has no words for limits."""

    target: str = Field(min_length=1)


class FetchBody(Body):
    """What may be fetched for an environment; ``None``: as the settings say."""

    from_pypi: bool | None = None
    offline: bool | None = None


class RunBody(ParametersBody, FetchBody):
    """``POST packages/{id}/runs``; ``environment`` is an id, a name, or an absolute path."""

    environment: str | None = Field(default=None, min_length=1, max_length=LONGEST_PATH)
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    memory_mb: int | None = Field(default=None, gt=0, le=1 << 40)
    priority: int = Field(default=2, ge=-1000, le=1000)
    retries: int = Field(default=0, ge=0, le=100)
    retry_delay_s: float = Field(default=10, ge=0, le=86_400, allow_inf_nan=False)
    key: str | None = Field(default=None, min_length=1, max_length=200)

    def key_of(self, header: str | None) -> str | None:
        """The key of the body or of the header ``Idempotency-Key``, quoted or not. Raises ``InvalidInput``."""
        if header is None:
            return self.key
        given = header[1:-1] if len(header) > 1 and header[0] == header[-1] == '"' else header
        if self.key not in (None, given):
            raise InvalidInput("The key in the body and the header Idempotency-Key are not the same: give one of them.")
        if not 0 < len(given) <= 200:  # noqa: PLR2004 - as the field's
            raise InvalidInput("The header Idempotency-Key has 1 to 200 characters.")
        return given


class TargetBody(RunBody):
    """``POST runs``."""

    target: str = Field(min_length=1)
    isolated: bool = False


class CreateBody(FetchBody):
    """``POST environments``: the absolute path of a ``file``, a ``text`` and the file's ``name``, or a ``template``."""

    file: str | None = Field(default=None, min_length=1, max_length=LONGEST_PATH)
    name: str | None = Field(default=None, min_length=1, max_length=255)
    text: str | None = Field(default=None, max_length=MOST_TEXT)
    template: str | None = Field(default=None, min_length=1, max_length=255)

    @model_validator(mode="after")
    def one_of_them(self) -> Self:
        """Refuse what says it twice, or not at all (called by pydantic)."""
        given = (self.file, self.text, self.template)
        if sum(each is not None for each in given) != 1 or (self.name is None) != (self.text is None):
            raise ValueError("give one of `file`, `name` with `text`, and `template`")
        return self


class LockBody(FetchBody):
    """``POST environments/lock``: absolute paths; ``platforms`` like ``linux-64``."""

    file: str = Field(min_length=1, max_length=LONGEST_PATH)
    output: str | None = Field(default=None, min_length=1, max_length=LONGEST_PATH)
    platforms: list[PlatformName] = Field(default_factory=list, max_length=50)


class ChannelBody(Body):
    """``POST environments/channel``: what PyPI has, or absolute paths of requirements files; an absolute folder."""

    requirements: list[Requirement] = Field(min_length=1, max_length=10_000)
    folder: str = Field(min_length=1, max_length=LONGEST_PATH)


class CollectBody(Body):
    """``POST environments/gc``; ``days`` is how long they must not have been used, ``None``: as the settings say."""

    days: float | None = Field(default=None, ge=0, le=1_000_000, allow_inf_nan=False)
    dry_run: bool = False


LONGEST_SCALAR = 10_000
"""Characters of a text that is read as YAML, which takes long; a longer one is a text as it stands."""


def yaml_scalar(text: str) -> Any:
    """``5`` -> 5, ``yes`` -> True, ``'5'`` -> "5"; what is no scalar of JSON's kinds in YAML stays the text it is."""
    if len(text) > LONGEST_SCALAR:
        return text
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.SafeLoader("").construct_object(node) if isinstance(node, yaml.ScalarNode) else text
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    if text.strip() and (value is None or isinstance(value, str | bool | int | float)):
        return value
    return text


def run_json(row: RunRow, output_size: int = 0) -> dict[str, Any]:
    """A run as the API shows it."""
    shown = {name: getattr(row, name) for name in row.__dataclass_fields__ if name not in HIDDEN}
    return {**shown, "state": str(row.state), "output_size": output_size}


def package_json(document: dict[str, Any]) -> dict[str, Any]:
    """A package's document (protocol §13) as the API shows it."""
    about = document.get("openiap") if isinstance(document.get("openiap"), dict) else {}
    return {
        "id": document.get("_id"),
        "name": document.get("name") or document.get("id") or document.get("_id"),
        "version": document.get("version") or "",
        "language": document.get("language") or (about or {}).get("language") or "",
        "description": document.get("description") or "",
        "author": document.get("author") or "",
        "main": document.get("main") or "",
        "daemon": bool(document.get("daemon")),
        "fileid": document.get("fileid") or "",
        "modified": document.get("_modified"),
    }
