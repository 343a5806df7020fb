"""The routes: one that answers, some that tell about the service, and the page for people."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

import effnet
from effnet.serving import schema
from effnet.serving.bodies import BodyReader
from effnet.serving.middleware import Observe
from effnet.serving.refusals import RefusalError
from effnet.serving.served import ServedModel
from effnet.serving.service import Service

PAGE = Path(__file__).with_name("page")
"""The files of the page for people."""

_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


def create_app(
    service: Service, *, token: str | None = None, log: Callable[[str], None] | None = None
) -> FastAPI:
    """Return the application; its lifespan starts and stops the service.

    Args:
        service: That answers.
        token: What clients must send as bearer token; None: nothing.
        log: Where the lines of the access log go.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    # The interactive documentation would load its scripts from elsewhere.
    app = FastAPI(
        title="effnet", version=effnet.__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    _add_predict(app, service, _authorization(token))
    _add_reports(app, service, _authorization(token), needs_token=token is not None)
    app.add_exception_handler(RefusalError, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(Exception, _failed)
    if service.config.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.config.allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(Observe, service=service, log=log)
    _add_page(app)
    return app


def _authorization(token: str | None) -> Callable[..., Any]:
    async def authorize(credentials: _Credentials) -> None:
        given = credentials.credentials if credentials else ""
        # In a time that does not depend on how much of it is right.
        if token is not None and not hmac.compare_digest(given.encode("latin-1"), token.encode()):
            raise RefusalError(401, "the token is missing or wrong; send it as: Authorization: Bearer TOKEN")

    return authorize


def _add_predict(app: FastAPI, service: Service, authorize: Callable[..., Any]) -> None:
    reader = BodyReader(service.config, service.admission, service.decoders)

    @app.post(
        "/v1/predict",
        dependencies=[Depends(authorize)],
        response_model=schema.Answer,
        responses=schema.FAILURES,
        openapi_extra=schema.REQUEST_BODY,
    )
    async def predict(request: Request) -> Response:
        """Name the most probable classes of one or many images."""
        service.admission.check_room()
        async with reader.read(request) as question:
            results = await service.answer(question)
        answer: dict[str, Any] = {"model": service.find(question).name, "results": results}
        if all("error" in result for result in results):
            return JSONResponse({"error": "none of the images can be read", **answer}, 422)
        return JSONResponse(answer)


def _add_reports(app: FastAPI, service: Service, authorize: Callable[..., Any], *, needs_token: bool) -> None:
    config = service.config

    @app.get("/v1/models", dependencies=[Depends(authorize)])
    async def models() -> schema.Models:
        """List the networks that can be asked."""
        return schema.Models(models=[_info(model) for model in service.models.values()])

    @app.get("/v1/limits")
    async def limits() -> schema.Limits:
        """Say what is accepted."""
        return schema.Limits(
            max_bytes=config.max_bytes,
            max_pixels=config.max_pixels,
            max_images=config.max_images,
            needs_token=needs_token,
        )

    @app.get("/healthz")
    async def healthz() -> schema.Health:
        """Say that the process is alive."""
        return schema.Health(status="alive")

    @app.get("/readyz", response_model=schema.Health, responses={503: {"model": schema.Failure}})
    async def readyz() -> Response:
        """Say whether new requests should be sent here."""
        if service.is_ready:
            return JSONResponse({"status": "ready"})
        reason = "the service is shutting down" if service.is_draining else "the networks are warming up"
        raise RefusalError(503, reason, retry_after_s=1)

    @app.get("/metrics", dependencies=[Depends(authorize)], response_class=Response)
    async def metrics() -> Response:
        """Return numbers for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    """Serve each file under its name: no path that a client sends is opened, and no other route is hidden."""
    for path in sorted(PAGE.iterdir()):
        address = "/" if path.name == "index.html" else f"/{path.name}"
        app.add_route(address, _sending(path), include_in_schema=False)


def _sending(path: Path) -> Callable[[Request], Awaitable[Response]]:
    async def send(_: Request) -> Response:
        # Asked for at every visit, so that a page never speaks to another version of the service.
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    return send


def _info(model: ServedModel) -> schema.ModelInfo:
    return schema.ModelInfo(
        name=model.name,
        network=model.network,
        image_size=model.preprocessing.image_size,
        crop_mode=model.preprocessing.crop_mode,
        crop_fraction=model.preprocessing.crop_fraction,
        classes=list(model.class_names),
        parameters=model.parameters,
        cam=model.cam_error is None,
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)
    return JSONResponse({"error": error.sentence}, error.status, error.headers)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = {
        404: "there is nothing at this address; /openapi.json lists what there is",
        405: f"{request.method} is not possible at this address; /openapi.json says what is",
    }.get(error.status_code, str(error.detail))
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def _failed(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "the service failed at this request; its log says why"}, 500)
