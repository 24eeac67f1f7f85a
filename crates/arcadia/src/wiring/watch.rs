//! Whether what a site writes is still there: without its log a site gives no answers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arcadia_kernel::{Body, Clock, Endpoint, Incoming, OpInfo, full_body};
use arcadia_store::{Store, StoreError};
use http::{HeaderValue, Response, StatusCode, header};

use crate::site::{DataDir, Trouble};

/// How soon a change is noticed that no request met.
const GLANCE: Duration = Duration::from_secs(1);
const TOLD: &str = r#"{"error":{"code":"ServiceUnavailable","message":"The site's data was changed from outside, and it answers nothing until its operator has looked at it: see `arcadia status`."}}"#;

/// A service that is silent once the files below it are not its own any more, also where it answers from memory
/// and records nothing.
pub struct Watched {
    pub inner: Arc<dyn Endpoint>,
    pub store: Store,
}

impl Endpoint for Watched {
    fn serve(self: Arc<Self>, incoming: Incoming) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(async move {
            if self.is_lost() {
                return refusal();
            }
            let answer = self.inner.clone().serve(incoming).await;
            // What was found out meanwhile may be why this answer is what it is.
            if self.is_lost() { refusal() } else { answer }
        })
    }

    fn service_name(&self) -> &'static str {
        self.inner.service_name()
    }

    fn catalogue(&self) -> Vec<OpInfo> {
        self.inner.catalogue()
    }
}

impl Watched {
    fn is_lost(&self) -> bool {
        matches!(self.store.check(), Err(StoreError::Interfered { .. }))
    }
}

fn refusal() -> Response<Body> {
    let mut response = Response::new(full_body(TOLD));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Looks once in a while, and leaves what is wrong where `arcadia status` finds it.
pub async fn watch(store: Store, data: DataDir, clock: Arc<dyn Clock>) {
    if let Err(fault) = Trouble::none(&data) {
        tracing::warn!(%fault, "`arcadia status` may not be told of trouble");
    }
    let mut told: Option<String> = None;
    loop {
        let found = store.check().err();
        let reason = found.as_ref().map(ToString::to_string);
        if reason != told {
            match &found {
                Some(error) => {
                    let lasting = matches!(error, StoreError::Interfered { .. });
                    let trouble = Trouble::new(error.to_string(), lasting, clock.now());
                    tracing::error!(reason = trouble.reason, "the site cannot record what it answers");
                    if let Err(fault) = trouble.save(&data) {
                        tracing::error!(%fault, "`arcadia status` cannot be told");
                    }
                }
                None => {
                    tracing::info!("the site can record what it answers again");
                    if let Err(fault) = Trouble::none(&data) {
                        tracing::error!(%fault, "`arcadia status` cannot be told");
                    }
                }
            }
            told = reason;
        }
        tokio::time::sleep(GLANCE).await;
    }
}
