//! Whether what a site writes is still there and can be written to: without its log a site gives no answers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arcadia_kernel::{Body, Clock, Endpoint, Incoming, OpInfo, full_body};
use arcadia_store::{Store, StoreError};
use http::{HeaderValue, Response, StatusCode, header};
use tokio::sync::watch;

use crate::site::{DataDir, Trouble};

/// How soon a change is noticed that no request met.
const GLANCE: Duration = Duration::from_secs(1);
const TOLD: &str = r#"{"error":{"code":"ServiceUnavailable","message":"The site cannot rely on its data, and answers nothing until its operator has looked at it: see `arcadia status`."}}"#;

/// How a site stands with its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It answers.
    #[default]
    Good,
    /// It answers nothing, and waits for its operator: what is on disk is not what it left there.
    Silent,
    /// It answers nothing and ends, for this reason: what is on disk is in order, but this process cannot go on.
    Over(String),
}

/// Follows a site's standing.
#[derive(Clone)]
pub struct Standings(watch::Receiver<Standing>);

impl Standings {
    /// Waits until the site answers nothing any more.
    pub async fn silent(&mut self) {
        if self.0.wait_for(|standing| *standing != Standing::Good).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the site is to end, and says why.
    pub async fn over(&mut self) -> String {
        match self.0.wait_for(|standing| matches!(standing, Standing::Over(_))).await.as_deref() {
            Ok(Standing::Over(reason)) => reason.clone(),
            _ => std::future::pending().await,
        }
    }
}

impl Standing {
    fn of(found: &StoreError) -> Self {
        match found {
            StoreError::Interfered { .. }
            | StoreError::RowsReplaced { .. }
            | StoreError::RowsUnchecked { .. } => Self::Silent,
            StoreError::Closed | StoreError::ObserverFailed => Self::Over(found.to_string()),
            // It may pass, as a full disk does.
            _ => Self::Good,
        }
    }
}

/// A service that is silent once the site cannot rely on its store any more, also where it answers from memory and
/// records nothing.
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
        self.store.check().is_err_and(|found| Standing::of(&found) != Standing::Good)
    }
}

fn refusal() -> Response<Body> {
    let mut response = Response::new(full_body(TOLD));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Looks once in a while, leaves what is wrong where `arcadia status` finds it, and tells those who follow the
/// [`Standings`]. Spawn the task that it returns.
pub fn watch(
    store: Store,
    data: DataDir,
    clock: Arc<dyn Clock>,
) -> (Standings, impl Future<Output = ()> + Send) {
    let (standing, standings) = watch::channel(Standing::Good);
    (Standings(standings), look(store, data, clock, standing))
}

async fn look(store: Store, data: DataDir, clock: Arc<dyn Clock>, standing: watch::Sender<Standing>) {
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
                    let now = Standing::of(error);
                    let trouble = Trouble::new(error.to_string(), now != Standing::Good, clock.now());
                    tracing::error!(reason = trouble.reason, "the site cannot record what it answers");
                    if let Err(fault) = trouble.save(&data) {
                        tracing::error!(%fault, "`arcadia status` cannot be told");
                    }
                    standing.send_replace(now);
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

#[cfg(test)]
mod tests {
    use arcadia_crypto::{KeyRing, SystemEntropy};
    use arcadia_kernel::FixedClock;
    use arcadia_store::{AuditDraft, Backend as _, RawBatch, SqliteBackend, SqliteOptions};

    use super::*;

    /// Answers from memory, and with a backend is what does the harm meanwhile.
    struct Careless(Option<Arc<SqliteBackend>>);

    impl Endpoint for Careless {
        fn serve(self: Arc<Self>, _: Incoming) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
            Box::pin(async move {
                if let Some(backend) = &self.0 {
                    let audit: AuditDraft = Box::new(|_, _| panic!("of this test"));
                    let deadly = RawBatch { audit: vec![audit], ..RawBatch::default() };
                    assert!(backend.commit(deadly).await.is_err());
                }
                Response::new(full_body("here"))
            })
        }

        fn service_name(&self) -> &'static str {
            "careless"
        }

        fn catalogue(&self) -> Vec<OpInfo> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn a_site_that_cannot_write_any_more_says_nothing_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::at(folder.path().to_owned());
        let clock = Arc::new(FixedClock::at_epoch_seconds(1000));
        let backend =
            Arc::new(SqliteBackend::open(&folder.path().join("site"), &SqliteOptions::default(), 1).unwrap());
        let ring = KeyRing::generate(&SystemEntropy).unwrap();
        let store = Store::over(backend.clone(), ring, Arc::new(SystemEntropy)).await.unwrap();
        let (mut standings, watching) = watch(store.clone(), data.clone(), clock);
        tokio::spawn(watching);
        let status = async |careless| {
            let watched = Arc::new(Watched { inner: Arc::new(careless), store: store.clone() });
            let (head, ()) = http::Request::new(()).into_parts();
            let (host, origin) = ("h".to_owned(), "https://h".to_owned());
            let incoming = Incoming { head, body: full_body(""), host, origin, remote: None };
            watched.serve(incoming).await.status().as_u16()
        };
        assert_eq!(status(Careless(None)).await, 200);
        assert_eq!(status(Careless(Some(backend))).await, 503, "found out before the answer leaves");
        assert_eq!(status(Careless(None)).await, 503);
        standings.silent().await;
        let reason = standings.over().await;
        assert!(reason.contains("start the site again"), "{reason}");
        let told = Trouble::of(&data, std::process::id()).unwrap().unwrap();
        assert!(told.lasting && told.reason == reason);
    }

    #[test]
    fn a_site_is_silent_while_its_rows_are_not_known_to_be_its_own() {
        let [interfered, replaced] = [
            StoreError::Interfered { path: "store.db".into(), what: "replaced" },
            StoreError::RowsReplaced { written: 1, found: 2 },
        ];
        let unchecked = StoreError::RowsUnchecked { source: Arc::new(StoreError::WrongKey) };
        for found in [interfered, replaced, unchecked] {
            assert_eq!(Standing::of(&found), Standing::Silent, "{found}");
        }
        let full = StoreError::Unavailable { task: "write", source: Arc::new("full".into()) };
        assert_eq!(Standing::of(&full), Standing::Good);
    }
}
