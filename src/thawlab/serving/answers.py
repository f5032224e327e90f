"""What the server says, as JSON: values from which the schema is made."""

from typing import Annotated, Any

from pydantic import Field

from thawlab.deploy.prediction import Prediction
from thawlab.results import Diagnosis
from thawlab.values import Value


class ClassProbability(Value):
    """A class and its calibrated probability."""

    class_name: Annotated[str, Field(alias="class", examples=["cat"])]
    probability: Annotated[float, Field(ge=0, le=1, examples=[0.94])]


class ModelAnswer(Value):
    """What one model says of a picture."""

    model: Annotated[str, Field(description="The name of the model, as /v1/models lists it.", examples=["photos-0123456789ab"])]
    predictions: Annotated[list[ClassProbability], Field(description="The most probable classes, the most probable first.")]
    prediction_set: Annotated[
        list[str] | None,
        Field(
            description="Classes that hold the true one in at least 90 % of pictures like the held-out ones; null if unknown.",
            examples=[["cat", "dog"]],
        ),
    ]
    unsure: Annotated[bool | None, Field(description="Whether that set has more than one class; null if unknown.")]
    novel: Annotated[bool | None, Field(description="Whether the picture is like nothing in training; null if unknown.")]


class PictureAnswer(Value):
    """What is said of one picture, or why it could not be read."""

    picture: Annotated[int, Field(description="Its place in the request, from 0.", ge=0)]
    answers: Annotated[
        tuple[ModelAnswer, ...], Field(description="One for each model; none for a picture that cannot be read.")
    ] = ()
    error: Annotated[str | None, Field(description="Why it cannot be read.")] = None


class Predicted(Value):
    """The answer to a request for predictions, in the order of its pictures."""

    request_id: str
    pictures: list[PictureAnswer]


class ModelFacts(Value):
    """What a model was trained on, and how good it is, from its run's results; null where that is not known."""

    name: str
    classes: list[str]
    size: Annotated[int, Field(description="Side of its input in pixels.")]
    engine: Annotated[str, Field(description="What computes it: torch, or an export.")] = "torch"
    backbone: str | None = None
    dataset: str | None = None
    n_train: int | None = None
    n_test: int | None = None
    test_accuracy: float | None = None
    test_accuracy_ci95: tuple[float, float] | None = None
    calibration_error: float | None = None
    findings: tuple[Diagnosis, ...] = ()


class Models(Value):
    """The models of this server, the first one being the default."""

    models: list[ModelFacts]


class Failure(Value):
    """Why a request was refused."""

    status: Annotated[int, Field(examples=[413])]
    message: Annotated[str, Field(examples=["a picture has more than 10 MB; send a smaller version"])]
    request_id: str


class Refused(Value):
    """The body of every answer that is not 200."""

    error: Failure


class Health(Value):
    """Whether the server is up."""

    status: Annotated[str, Field(examples=["ok"])]


def model_answer(model: str, prediction: Prediction, top_k: int) -> ModelAnswer:
    """Return what a model says of a picture, with at most `top_k` classes."""
    pairs = list(zip(prediction.classes, prediction.probabilities, strict=True))[:top_k]
    held = prediction.prediction_set
    return ModelAnswer(
        model=model,
        predictions=[ClassProbability(class_name=name, probability=probability) for name, probability in pairs],
        prediction_set=None if held is None else list(held),
        unsure=prediction.unsure,
        novel=prediction.novel,
    )


_ABOUT = {
    400: "The request cannot be read.",
    401: "The token is missing or wrong.",
    403: "A page of another site may not ask.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    413: "Too large, or too many pictures.",
    415: "Neither a picture nor a form.",
    421: "Sent to a name that is not this server's.",
    422: "A picture cannot be read, or a parameter is wrong.",
    431: "Headers are too long.",
    500: "The server failed; its log says why.",
    503: "Too much to do; Retry-After says when to try again.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the answers of a route that are not 200, for the schema."""
    return {status: {"model": Refused, "description": _ABOUT[status]} for status in statuses}
