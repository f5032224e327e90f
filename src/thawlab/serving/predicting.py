"""The routes that answer for pictures: `/v1/models`, `/v1/predict` and `/v1/explain`."""

import asyncio
import io
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, final

from fastapi import APIRouter, Query, Request, Response
from PIL import Image

from thawlab.data.types import Pixels
from thawlab.errors import ThawlabError
from thawlab.serving.answers import Models, PictureAnswer, Predicted, model_answer, refusals
from thawlab.serving.batching import Batcher
from thawlab.serving.decoding import Decoders
from thawlab.serving.refusals import RefusedError, busy
from thawlab.serving.settings import Limits
from thawlab.serving.shelf import Served, Shelf
from thawlab.serving.upload import FIELD, Budget, pictures_of

_DECODED_AT_ONCE = 4  # of one request: another waits until one of them is done
_MODELS_AT_ONCE = 4
_PICTURE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "required": [FIELD],
    "additionalProperties": False,
    "properties": {FIELD: {"type": "array", "items": _PICTURE, "minItems": 1}},
}
_BODY = {
    "required": True,
    "description": f"One picture as the body itself, or up to {Limits().pictures} as parts of a form.",
    "content": {"multipart/form-data": {"schema": _FORM}, "image/*": {"schema": _PICTURE}},
}
_ONE_PICTURE = {"required": True, "content": {"image/*": {"schema": _PICTURE}, "multipart/form-data": {"schema": _FORM}}}
_OVERLAY = {"content": {"image/png": {"schema": _PICTURE}}, "description": "The picture at working size beside its overlay."}
_REFUSED = refusals(400, 401, 403, 404, 408, 413, 415, 421, 422, 431, 500, 503)


@final
class Desk:
    """Takes the pictures of requests, has them decoded and asks the models.

    Args:
        shelf: the models.
        decoders: where pictures become pixels.
        limits: what is refused.
    """

    def __init__(self, shelf: Shelf, decoders: Decoders, limits: Limits) -> None:
        self.shelf, self.limits, self.budget = shelf, limits, Budget(limits.buffered_bytes)
        self._decoders, self._uploads = decoders, 0

    async def answers(self, request: Request, models: Sequence[tuple[Served, Batcher]], top_k: int) -> list[PictureAnswer]:
        """Return what each picture of a request is, in their order.

        Raises:
            RefusedError: if the body is refused, or the server has too much to do.
        """
        gate = asyncio.Semaphore(_DECODED_AT_ONCE)
        tasks: list[asyncio.Task[PictureAnswer]] = []
        try:
            async with aclosing(self.received(request)) as pictures:
                async for content in pictures:
                    task = asyncio.create_task(self._one(len(tasks), content, models, top_k, gate))
                    task.add_done_callback(partial(self._done, len(content)))
                    tasks.append(task)
                    del content
                    await gate.acquire()
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def received(self, request: Request) -> AsyncGenerator[bytes]:
        """Yield the pictures of a request; who takes one gives its bytes back to the budget.

        Raises:
            RefusedError: if the body is refused, or too many are being received.
        """
        if self._uploads >= self.limits.uploads:
            raise busy("too many requests are sending pictures")
        self._uploads += 1
        try:
            async with aclosing(pictures_of(request, self.limits, self.budget)) as pictures:
                async for picture in pictures:
                    yield picture
        finally:
            self._uploads -= 1

    def _done(self, size: int, _: object) -> None:
        self.budget.give(size)

    async def fitted(self, content: bytes, models: Sequence[Served]) -> list[Pixels] | str:
        """Return a picture as each model takes it, or why it cannot be read."""
        return await self._decoders.fit(content, [model.predictor.preprocessing for model in models])

    async def _one(
        self, number: int, content: bytes, models: Sequence[tuple[Served, Batcher]], top_k: int, gate: asyncio.Semaphore
    ) -> PictureAnswer:
        try:
            pixels = await self.fitted(content, [model for model, _ in models])
        finally:
            gate.release()
        del content
        if isinstance(pixels, str):
            self._count("unreadable")
            return PictureAnswer(picture=number, error=pixels)
        found = await asyncio.gather(*(batcher.predict(own, top_k) for (_, batcher), own in zip(models, pixels, strict=True)))
        answers = tuple(model_answer(model.name, prediction, top_k) for (model, _), prediction in zip(models, found, strict=True))
        self._count("predicted")
        return PictureAnswer(picture=number, answers=answers)

    def _count(self, outcome: str) -> None:
        self.shelf.observed.pictures.labels(outcome).inc()


def _none_named() -> list[str]:
    """Return no names; the signature of `list` itself would be read from a text for each request, as long as all else takes."""
    return []


def prediction_routes(desk: Desk, ask_all: bool) -> APIRouter:
    """Return the routes that answer for pictures.

    Args:
        desk: does the work.
        ask_all: whether all models are asked where none is named; one must be named otherwise.
    """
    router = APIRouter(prefix="/v1", tags=["pictures"])
    about = "The model to ask; repeat it for several." + (" All of them if omitted." if ask_all else "")

    async def chosen(names: list[str]) -> list[tuple[Served, Batcher]]:
        names = list(dict.fromkeys(names or desk.shelf.names))
        if len(names) > _MODELS_AT_ONCE:
            raise RefusedError(422, f"at most {_MODELS_AT_ONCE} models answer one request; name those that should")
        return [await desk.shelf.get(name) for name in names]

    @router.get("/models", summary="The models, what they were trained on and how good they are", responses=refusals(401, 403))
    async def models() -> Models:
        facts = [(await desk.shelf.get(name))[0].facts for name in desk.shelf.names] if ask_all else []
        return Models(models=facts)

    @router.post("/predict", summary="Predict the classes of pictures", responses=_REFUSED, openapi_extra={"requestBody": _BODY})
    async def predict(
        request: Request,
        model: Annotated[list[str], Query(default_factory=_none_named, description=about, max_length=_MODELS_AT_ONCE)],
        top_k: Annotated[int, Query(description="How many classes to name.", ge=1, le=1000)] = 5,
    ) -> Predicted:
        if not (ask_all or model):
            raise RefusedError(422, "name the model: /v1/predict?model=RUN")
        found = await desk.answers(request, await chosen(model), top_k)
        request.state.told = {"pictures": len(found)}
        if all(one.error for one in found):
            errors = ", ".join(dict.fromkeys(str(one.error) for one in found))
            raise RefusedError(422, f"{'no picture can' if len(found) > 1 else 'the picture cannot'} be read ({errors})")
        return Predicted(request_id=request.state.request_id, pictures=found)

    @router.post(
        "/explain",
        summary="Show what in a picture speaks for a class (Grad-CAM)",
        response_class=Response,
        responses={**_REFUSED, 200: _OVERLAY},
        openapi_extra={"requestBody": _ONE_PICTURE},
    )
    async def explain(
        request: Request,
        model: Annotated[str | None, Query(description="The model to ask; the first one if omitted.")] = None,
        class_name: Annotated[
            str | None, Query(alias="class", description="What to explain; the predicted class if omitted.")
        ] = None,
    ) -> Response:
        if not (ask_all or model):
            raise RefusedError(422, "name the model: /v1/explain?model=RUN")
        [(served, _)] = await chosen([model or desk.shelf.names[0]])
        fitted: list[Pixels] | str | None = None
        async for content in desk.received(request):
            try:
                if fitted is not None:
                    raise RefusedError(413, "one picture is explained at a time")
                fitted = await desk.fitted(content, [served])
            finally:
                desk.budget.give(len(content))
        if fitted is None or isinstance(fitted, str):
            raise RefusedError(422, f"the picture cannot be read ({fitted})")
        pixels = fitted[0]
        try:
            shown = await asyncio.get_running_loop().run_in_executor(
                desk.shelf.compute, served.predictor.explain_fitted, pixels, class_name
            )
        except ThawlabError as error:
            raise RefusedError(422, str(error)) from None
        buffer = io.BytesIO()
        Image.fromarray(shown).save(buffer, "PNG")
        return Response(buffer.getvalue(), media_type="image/png")

    return router
