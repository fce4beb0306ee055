"""The shapes of the API's answers; ``/openapi.json`` is made from them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

NOTICE = "Research software, not a diagnostic device."


class Document(BaseModel):
    """What all answers share: no field beyond the announced ones."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Wanted(Document):
    """What answers are to hold beside the probabilities."""

    trace: bool = Field(False, description="Which tokens the model kept.")
    overlay: bool = Field(False, description="The same, drawn over the photo.")


class Stage(Document):
    """A cut of the model: what it scored and what it kept. Positions count the tokens row by row, from 0."""

    positions: list[int]
    scores: list[float]
    kept: list[int]


class Trace(Document):
    """What one member of the classifier kept of the photo."""

    rows: int
    columns: int
    stages: list[Stage]


class PhotoAnswer(Document):
    """What the model says of one photo."""

    name: str = Field(examples=["lesion.jpg"])
    width: int = Field(description="Pixels across, upright.", examples=[3024])
    height: int = Field(description="Pixels down, upright.", examples=[4032])
    top_class: str = Field(description="The most probable class.")
    confidence: float = Field(description="Its calibrated probability.", ge=0, le=1)
    probabilities: dict[str, float] = Field(description="Calibrated probability of each class.")
    prediction_set: list[str] | None = Field(
        description="Classes that together hold the true one at the level of /v1/model; null where there are none."
    )
    abstain: bool = Field(description="Whether to leave the photo to a person.")
    reason: str | None = Field(description="Why; null without abstention.")
    traces: list[Trace] = Field(description="One a member; empty unless asked for, and where the model prunes nothing.")
    overlays: list[str] | None = Field(
        default=None,
        description="Only with overlay=true: the photo under its tokens, then what is kept after each cut of the first "
        "member, as data:image/png;base64 addresses. Empty where the model prunes nothing.",
    )


class Prediction(Document):
    """Answers to the photos of a request, in their order."""

    model: str
    notice: str = NOTICE
    answers: list[PhotoAnswer]


class RuleFacts(Document):
    """How logits become answers."""

    method: str | None
    level: float
    class_conditional: bool | None
    error_rate: float
    abstain_below: float | None
    no_threshold_because: str | None
    no_sets_because: str | None
    temperature: float


class CalibrationFacts(Document):
    """Which photos the rules come from."""

    source: str
    photos: int
    groups: int
    approximate_because: str | None


class LimitFacts(Document):
    """What the server lets in."""

    photos: int = Field(description="Photos of a request.")
    bytes: int = Field(description="Bytes of a photo.")
    request_bytes: int = Field(description="Bytes of a request.")
    pixels: int = Field(description="Pixels of a photo; a quarter of it with transparency or 16 bits.")


class ModelFacts(Document):
    """The model that is served."""

    name: str
    notice: str = NOTICE
    architecture: str
    classes: list[str]
    image_size: int
    members: int = Field(description="Models whose probabilities are averaged.")
    prunes: bool = Field(description="Whether it prunes tokens, so that there are traces and overlays.")
    parameters: int
    init: str
    licence: str | None
    version: str
    sha256: str
    rules: RuleFacts
    calibration: CalibrationFacts
    card: dict[str, Any] = Field(description="The model card: a title and sections of entries.")
    limits: LimitFacts
    needs_token: bool


class PhotoProblem(Document):
    """What is wrong with one photo."""

    name: str
    rule: str
    found: str
    expected: str
    fix: str


class ProblemDocument(Document):
    """Why a request was refused (RFC 9457)."""

    title: str
    status: int
    detail: str
    problems: list[PhotoProblem]


class State(Document):
    """Whether the server lives or is ready."""

    status: str
