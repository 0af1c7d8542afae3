//! The HTTP interface: what of the registry can be asked and done from outside, and by whom.
//!
//! It owns which routes there are, the scope that each one takes, and the layers around them. It does not know how requests
//! arrive, nor what a process is.

pub(crate) mod access;
mod backup_routes;
mod change_routes;
mod change_stream;
mod change_view;
mod commit_signal;
mod description;
mod event_routes;
mod event_stream;
mod extract;
mod health;
mod host_routes;
pub(crate) mod login;
pub(crate) mod metrics;
pub(crate) mod origin;
mod owner_routes;
mod page_budget;
mod problem;
mod process_routes;
pub(crate) mod process_view;
mod prune_routes;
mod rate_limit;
mod request_log;
mod session_routes;
mod start_request;
mod stats;
mod stream_room;
mod time_limit;
mod verify_routes;
mod wait_routes;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use awaiter::{ProcessAwaiter, ProcessChangeHub};
use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, header},
    middleware::{from_fn, from_fn_with_state},
    response::IntoResponse,
    routing::get,
};
use registry_actor::{port::ProcessRegistry, worker::Worker};
use tokio::sync::{Semaphore, watch};
use tower_http::{
    catch_panic::CatchPanicLayer,
    limit::RequestBodyLimitLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    set_header::SetResponseHeaderLayer,
    timeout::RequestBodyDeadlineLayer,
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    access::LocalPeer, commit_signal::CommitSignal, login::LoginCodes, origin::HostNames, problem::Problem,
    rate_limit::RateLimit, stream_room::StreamRoom,
};
use crate::{
    host::Host,
    serve::{
        config::ServeConfig,
        credentials::{Credentials, Scope},
    },
};

/// Where the interface stands; a later version gets a place of its own.
const BASE: &str = "/api/v1";

/// How long a client may take to send the body of a request.
const BODY_PATIENCE: Duration = Duration::from_secs(20);

/// What the routes work with.
pub(crate) struct Api {
    /// The registry and its store.
    pub(crate) host: Host,
    /// Who runs commands, and can explain.
    pub(crate) worker: Worker,
    /// Who waits.
    pub(crate) awaiter: ProcessAwaiter,
    /// Ticks of single processes.
    pub(crate) hub: ProcessChangeHub,
    /// Ticks of the whole store.
    pub(crate) commits: CommitSignal,
    /// Whose tokens are known.
    pub(crate) credentials: Credentials,
    /// The one-time links that browsers come in by.
    pub(crate) login_codes: LoginCodes,
    /// The settings.
    pub(crate) config: ServeConfig,
    /// Room for open streams.
    pub(crate) streams: Arc<Semaphore>,
    /// Who may have how much of that room.
    pub(crate) stream_room: StreamRoom,
    /// Whether a copy of the store is under way: there is one at a time.
    pub(crate) copying: Semaphore,
    /// How often each caller may ask, if that is limited.
    pub(crate) rate_limit: Option<RateLimit>,
    /// When it came up.
    pub(crate) started: Instant,
    /// Whether the host is going down.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Api {
    /// The interface of a host that has started.
    pub(crate) fn new(
        host: Host,
        worker: Worker,
        credentials: Credentials,
        config: ServeConfig,
        stopping: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let registry = Arc::new(host.registry.clone()) as Arc<dyn ProcessRegistry>;
        // The registry of this host tells of its commits.
        let source = registry.change_source().unwrap_or_default();
        let streams = Arc::new(Semaphore::new(config.max_streams));
        Arc::new(Self {
            awaiter: ProcessAwaiter::attached(registry),
            hub: ProcessChangeHub::attached_to(&source),
            commits: CommitSignal::attached_to(&source),
            host,
            worker,
            credentials,
            login_codes: LoginCodes::default(),
            stream_room: StreamRoom::new(Arc::clone(&streams), config.max_streams),
            streams,
            copying: Semaphore::new(1),
            rate_limit: RateLimit::new(config.requests_per_second),
            started: Instant::now(),
            config,
            stopping,
        })
    }

    /// Whether the host is going down.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until the host is going down. May be dropped at any time.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // A sender that is gone has stopped too.
        drop(stopping.wait_for(|is_stopping| *is_stopping).await);
    }
}

/// The description of the interface, without its routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Proctor",
        description = "Durable processes: start, watch, await, signal, cancel. Every failure is a problem document (RFC 9457) of \
                       type `application/problem+json`; times are ms since the Unix epoch.",
    ),
    modifiers(&BearerToken),
    security(("token" = [])),
)]
struct Description;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token of this host, from the file beside its store that ends in `.tokens`"))
            .build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The routes that look.
fn reading() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(process_routes::list))
        .routes(routes!(process_routes::get))
        .routes(routes!(process_routes::explain))
        .routes(routes!(event_routes::page))
        .routes(routes!(change_routes::page))
        .routes(routes!(session_routes::list))
        .routes(routes!(host_routes::show))
        .routes(routes!(host_routes::stuck))
        .routes(routes!(stats::get))
}

/// Those of them that take their time.
fn waiting() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(event_routes::stream))
        .routes(routes!(change_routes::stream))
        .routes(routes!(wait_routes::wait))
}

/// The routes that change a process.
fn writing() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(process_routes::start))
        .routes(routes!(process_routes::signal))
        .routes(routes!(process_routes::cancel))
        .routes(routes!(process_routes::abandon))
        .routes(routes!(owner_routes::append))
        .routes(routes!(owner_routes::complete))
        .routes(routes!(session_routes::grant))
        .routes(routes!(session_routes::revoke))
        .routes(routes!(session_routes::transfer))
        .routes(routes!(session_routes::delete))
}

/// The routes of who operates the host.
fn operating() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(login::create_link))
        .routes(routes!(prune_routes::prune))
        .routes(routes!(verify_routes::verify))
}

/// Those of them that take their time.
fn copying() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(backup_routes::back_up))
}

/// The routes with the scopes that they take, and their description.
fn described_routes() -> OpenApiRouter<Arc<Api>> {
    let brief =
        |routes: OpenApiRouter<Arc<Api>>| routes.route_layer(from_fn_with_state(time_limit::BRIEF, time_limit::hold));
    let of_scope = |mut routes: OpenApiRouter<Arc<Api>>, scope| {
        description::take(scope, routes.get_openapi_mut());
        routes.route_layer(from_fn(origin::check_type)).route_layer(from_fn_with_state(scope, access::require))
    };
    let routes = of_scope(brief(reading()).merge(waiting()), Scope::Read)
        .merge(of_scope(brief(writing()), Scope::Write))
        .merge(of_scope(brief(operating()).merge(copying()), Scope::Operate));
    OpenApiRouter::with_openapi(Description::openapi()).nest(BASE, routes)
}

/// Everything that is served, however it arrives.
pub(crate) fn router(api: &Arc<Api>) -> Router {
    let (routes, description) = described_routes().split_for_parts();
    let description = description::complete(description);
    let description = Router::new()
        .route("/api/v1/openapi.json", get(move || std::future::ready(axum::Json(description.clone()))))
        .route_layer(from_fn_with_state(Scope::Read, access::require));
    routes
        .merge(description)
        .merge(login::routes())
        .merge(health::routes())
        .merge(crate::page::routes())
        .merge(metrics::routes())
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .fallback(|| async { Problem::no_such_route() })
        .with_state(Arc::clone(api))
        .layer(DefaultBodyLimit::max(api.config.max_body_bytes))
        .layer(from_fn_with_state(Arc::clone(api), rate_limit::count))
        // By its announced length a body is refused before any of it has come.
        .layer(RequestBodyLimitLayer::new(api.config.max_body_bytes))
        .layer(RequestBodyDeadlineLayer::new(BODY_PATIENCE))
        .layer(from_fn_with_state(Arc::clone(api), access::identify))
        .layer(CatchPanicLayer::custom(|_| Problem::internal("a part of this host panicked").into_response()))
}

/// What the port serves: to who calls this host by its name, from its own pages, and shows a token.
pub(crate) fn for_web(router: Router, names: HostNames) -> Router {
    finished(router.layer(from_fn_with_state(names, origin::check)))
}

/// What the socket serves: to peers that were checked when they connected.
pub(crate) fn for_local_peers(router: Router) -> Router {
    finished(router.layer(Extension(LocalPeer)))
}

/// A header of every answer that does not have another one.
fn unless_said(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// The layers outside of everything else: the ids of requests, and the problems.
fn finished(router: Router) -> Router {
    router
        .layer(from_fn(problem::write_problems))
        .layer(from_fn(request_log::note))
        .layer(unless_said(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(unless_said(header::CACHE_CONTROL, "no-store"))
        .layer(unless_said(header::REFERRER_POLICY, "no-referrer"))
        .layer(unless_said(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"))
        .layer(PropagateRequestIdLayer::new(problem::REQUEST_ID))
        .layer(SetRequestIdLayer::new(problem::REQUEST_ID, MakeRequestUuid))
}
