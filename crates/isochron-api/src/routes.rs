//! The resources: one list from which both the router and the OpenAPI document
//! are built.
//!
//! What changes something runs to its end in a task of its own: a caller who
//! goes away must not leave half of it undone.

mod collections;
mod exports;
mod jobs;
mod machines;
mod reference_points;
mod snapshots;
mod users;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use isochron_access::Users;
use isochron_engine::model::JobId;
use isochron_engine::{Caller, Engine, EngineError};
use isochron_net::Tls;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiError;
use crate::dto::{Certificate, Error, ErrorKind, Version};

/// What a router serves.
#[derive(Clone)]
pub struct Served {
    /// The engine; what asks through the router is told to its audit.
    pub engine: Engine,
    /// The users.
    pub users: Arc<Users>,
    /// What the listeners with TLS show, if there are any.
    pub tls: Option<Arc<Tls>>,
    /// What of a request is too much.
    pub limits: Limits,
}

/// What of a request is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its body.
    pub body: usize,
    /// For its body to be on its way.
    pub body_time: Duration,
}

impl Default for Limits {
    /// 1 MiB, a hundred times of what makes sense (a definition with many disks), and
    /// 30 s.
    fn default() -> Self {
        Self {
            body: 1 << 20,
            body_time: Duration::from_secs(30),
        }
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Isochron",
        description = "Snapshots of a collection of virtual machines at one instant.\n\n\
            Machines, collections, snapshots and reference points are named by identifier or by name wherever \
            they are named. What takes long is answered with 202 and a job. Served on a unix \
            socket to local administrators, and on HTTP and HTTPS, where the daemon is told to, \
            to its users: credentials are Basic or a client's certificate."
    ),
    tags(
        (name = "machines", description = "Virtual machines"),
        (name = "collections", description = "Sets of machines"),
        (name = "snapshots", description = "Snapshots of whole collections"),
        (name = "reference points", description = "Instants from which differences are told"),
        (name = "jobs", description = "What runs after a call has returned"),
        (name = "users", description = "Who gets in on TCP"),
        (name = "daemon", description = "The daemon itself")
    )
)]
struct Document;

/// Every resource, with its description.
fn resources() -> OpenApiRouter<Served> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(version))
        .routes(routes!(machines::list, machines::create))
        .routes(routes!(machines::show, machines::change, machines::remove))
        .routes(routes!(machines::start))
        .routes(routes!(machines::stop))
        .routes(routes!(machines::pause))
        .routes(routes!(machines::resume))
        .routes(routes!(machines::save))
        .routes(routes!(collections::list, collections::create))
        .routes(routes!(
            collections::show,
            collections::change,
            collections::remove
        ))
        .routes(routes!(snapshots::list, snapshots::create))
        .routes(routes!(snapshots::show, snapshots::destroy))
        .routes(routes!(snapshots::apply))
        .routes(routes!(exports::snapshot))
        .routes(routes!(reference_points::convert))
        .routes(routes!(reference_points::list, reference_points::create))
        .routes(routes!(reference_points::show, reference_points::destroy))
        .routes(routes!(reference_points::forget_data))
        .routes(routes!(exports::reference_point))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::cancel))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::change, users::remove))
        .routes(routes!(tls))
}

/// The API. What a request does is done for the
/// [`Caller`](isochron_engine::Caller) that the listener found, an extension of the
/// request; without one, for a reader.
pub fn router(served: Served) -> Router {
    let served = Served {
        engine: served.engine.on_behalf_of(Caller::reader("http")),
        ..served
    };
    let (router, _) = resources().split_for_parts();
    router
        .route(
            "/openapi.json",
            get(|| async { ([(CONTENT_TYPE, "application/json")], openapi_text()) }),
        )
        .fallback(no_such_resource)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(served.limits, read_body))
        .layer(DefaultBodyLimit::disable())
        .with_state(served)
}

/// The OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let (_, document) = resources().split_for_parts();
    document
}

/// The OpenAPI document as text: JSON for people, with a line end.
pub fn openapi_text() -> String {
    #[expect(
        clippy::expect_used,
        reason = "a document of strings, numbers and maps is JSON"
    )]
    let mut text = openapi()
        .to_pretty_json()
        .expect("OpenAPI document as JSON");
    text.push('\n');
    text
}

/// Which program answers, and its version.
#[utoipa::path(get, path = "/v1/version", tag = "daemon",
    responses((status = 200, description = "The daemon", body = Version)))]
async fn version() -> Json<Version> {
    Json(Version {
        name: "isochron".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The certificate that listeners with TLS show.
#[utoipa::path(get, path = "/v1/tls", operation_id = "show_tls", tag = "daemon",
    responses((status = 200, description = "The certificate", body = Certificate), Refusal))]
async fn tls(State(served): State<Served>) -> Result<Json<Certificate>, ApiError> {
    match served.tls {
        Some(tls) => Ok(Json(tls.certificate().into())),
        None => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            ErrorKind::NotFound,
            "no listener of this daemon uses TLS: listen.cimxml_https, listen.wsman_https and \
             listen.https are off",
        )),
    }
}

async fn no_such_resource(request: Request) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        ErrorKind::NotFound,
        format!(
            "there is no resource {}; see /openapi.json",
            request.uri().path()
        ),
    )
}

async fn no_such_method(request: Request) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::NotSupported,
        format!(
            "{} has no {}; see /openapi.json",
            request.uri().path(),
            request.method()
        ),
    )
}

/// Reads the body before the handler runs, within a size and a time.
async fn read_body(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let reading = axum::body::to_bytes(body, limits.body);
    match tokio::time::timeout(limits.body_time, reading).await {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, body.into())).await,
        Ok(Err(_)) => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::InvalidParameter,
            format!(
                "the request's body is larger than {} bytes, or broke off",
                limits.body
            ),
        )
        .into_response(),
        Err(_) => ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            ErrorKind::Timeout,
            format!(
                "the request's body did not come within {} s",
                limits.body_time.as_secs_f32()
            ),
        )
        .into_response(),
    }
}

/// A body of JSON, refused in our form.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(ApiError))]
struct Body<T>(T);

/// Query parameters, refused in our form.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
struct Query<T>(T);

/// What the path names, refused in our form.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
struct Named<T>(T);

/// The engine, acting for who asks.
struct Asked(Engine);

impl FromRequestParts<Served> for Asked {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        served: &Served,
    ) -> Result<Self, Self::Rejection> {
        let engine = &served.engine;
        Ok(Self(match parts.extensions.get::<Caller>() {
            Some(caller) => engine.on_behalf_of(caller.clone()),
            None => engine.clone(),
        }))
    }
}

/// Who asks, as jobs keep it.
struct Owner(Option<String>);

impl<S: Sync> FromRequestParts<S> for Owner {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let caller = parts.extensions.get::<Caller>();
        Ok(Self(caller.and_then(|caller| caller.name.clone())))
    }
}

/// Runs a change to its end, even if the caller goes away.
async fn to_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(change).await {
        Ok(result) => Ok(result?),
        Err(error) => {
            tracing::error!(%error, "a request's task ended without an answer");
            Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                ErrorKind::Failed,
                "the daemon failed while it carried this out; its log says more",
            ))
        }
    }
}

/// The answer with which a job is handed out.
async fn accepted(
    engine: &Engine,
    started: JobId,
) -> Result<
    (
        StatusCode,
        [(http::HeaderName, String); 1],
        Json<crate::dto::Job>,
    ),
    ApiError,
> {
    let job = engine.job(started).await?;
    let location = [(http::header::LOCATION, format!("/v1/jobs/{started}"))];
    Ok((StatusCode::ACCEPTED, location, Json(job.into())))
}

/// The refusals that every resource may answer with.
#[derive(utoipa::IntoResponses)]
#[response(status = "default", description = "A refusal")]
struct Refusal(#[allow(dead_code, reason = "described, not made: ApiError answers")] Error);
