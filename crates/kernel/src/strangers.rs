//! Strangers cannot fill the audit log: of requests in which nobody proved to be anybody, a bounded number is
//! recorded one by one in each minute, and of the others how many there were.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    Action as _, ArmId, AuditEvent, AuditFault, AuditSink, Caller, CallerKind, Open, Outcome, counted_address,
};

/// Records of strangers in one minute.
const RECORDS_PER_MINUTE_MAX: u32 = 300;
/// Records of strangers from one address in one minute, so that one does not use up what is there for all.
const RECORDS_PER_ADDRESS_AND_MINUTE_MAX: u32 = 60;
const WINDOW_SECONDS: i64 = 60;

/// A log in which the records of [`CallerKind::Anonymous`] are bounded; all others pass.
pub struct StrangersBounded {
    inner: Arc<dyn AuditSink>,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    /// Since 1970.
    minute: i64,
    recorded: u32,
    /// Only addresses with a record, as they are counted, so at most [`RECORDS_PER_MINUTE_MAX`].
    by_address: HashMap<Option<IpAddr>, u32>,
    left_out: Option<LeftOut>,
}

#[derive(Clone, Copy)]
struct LeftOut {
    requests: u64,
    since: Timestamp,
}

type Appended = Result<(), AuditFault>;

fn minute(time: Timestamp) -> i64 {
    time.as_second().div_euclid(WINDOW_SECONDS)
}

impl Window {
    /// Whether one more is recorded by itself.
    fn takes(&mut self, event: &AuditEvent) -> bool {
        if self.recorded < RECORDS_PER_MINUTE_MAX {
            let from_address = self.by_address.entry(event.remote.map(counted_address)).or_default();
            if *from_address < RECORDS_PER_ADDRESS_AND_MINUTE_MAX {
                *from_address += 1;
                self.recorded += 1;
                return true;
            }
        }
        self.left_out.get_or_insert(LeftOut { requests: 0, since: event.time }).requests += 1;
        false
    }
}

impl StrangersBounded {
    pub fn over(inner: Arc<dyn AuditSink>) -> Arc<Self> {
        Arc::new(Self { inner, window: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new minute if it is time; what the old one left out is to be told.
    fn turn(&self, now: Timestamp) -> Option<LeftOut> {
        let mut window = self.lock();
        if window.minute == minute(now) {
            return None;
        }
        let old = std::mem::replace(&mut *window, Window { minute: minute(now), ..Window::default() });
        old.left_out
    }

    /// Records how many were left out in a minute that has passed. Call it now and then.
    pub async fn tell(&self, now: Timestamp) -> Result<(), AuditFault> {
        match self.turn(now) {
            Some(left_out) => self.record(left_out, now).await,
            None => Ok(()),
        }
    }

    /// Records how many were left out until now; before a site stops.
    pub async fn tell_all(&self, now: Timestamp) -> Result<(), AuditFault> {
        let left_out = self.lock().left_out.take();
        match left_out {
            Some(left_out) => self.record(left_out, now).await,
            None => Ok(()),
        }
    }

    async fn record(&self, left_out: LeftOut, now: Timestamp) -> Result<(), AuditFault> {
        let LeftOut { requests, since } = left_out;
        let nobody = Caller::anonymous();
        let event = AuditEvent {
            time: now,
            request_id: Uuid::nil(),
            service: "site".into(),
            operation: "strangers".into(),
            action: Open::name(),
            scope: ArmId::root(),
            caller_kind: nobody.kind,
            caller_object_id: nobody.object_id,
            caller_app_id: nobody.app_id,
            caller_name: nobody.name,
            remote: None,
            assignment: None,
            also: Vec::new(),
            outcome: Outcome::LeftOut { requests, since },
        };
        let written = self.inner.append(event).await;
        if written.is_err() {
            // Not told yet, so it counts on.
            let mut window = self.lock();
            let later = window.left_out.map_or(0, |later| later.requests);
            window.left_out = Some(LeftOut { requests: requests + later, since });
        }
        written
    }

    async fn append_of_stranger(&self, event: AuditEvent) -> Result<(), AuditFault> {
        self.tell(event.time).await?;
        let takes = self.lock().takes(&event);
        if takes { self.inner.append(event).await } else { Ok(()) }
    }
}

impl AuditSink for StrangersBounded {
    // Written out, so that what passes takes no future of its own.
    fn append<'a, 'r>(&'a self, event: AuditEvent) -> Pin<Box<dyn Future<Output = Appended> + Send + 'r>>
    where
        'a: 'r,
        Self: 'r,
    {
        if event.caller_kind == CallerKind::Anonymous {
            Box::pin(self.append_of_stranger(event))
        } else {
            self.inner.append(event)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<AuditEvent>>, std::sync::atomic::AtomicBool);

    #[async_trait::async_trait]
    impl AuditSink for Kept {
        async fn append(&self, event: AuditEvent) -> Result<(), AuditFault> {
            if self.1.load(std::sync::atomic::Ordering::Acquire) {
                return Err(AuditFault("full".into()));
            }
            self.0.lock().unwrap().push(event);
            Ok(())
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn event(kind: CallerKind, second: i64, remote: &str) -> AuditEvent {
        AuditEvent {
            time: at(second),
            request_id: Uuid::nil(),
            service: "login".into(),
            operation: "Token".into(),
            action: "open".into(),
            scope: ArmId::root(),
            caller_kind: kind,
            caller_object_id: Uuid::nil(),
            caller_app_id: Uuid::nil(),
            caller_name: String::new(),
            remote: Some(remote.parse().unwrap()),
            assignment: None,
            also: Vec::new(),
            outcome: Outcome::Answered { status: 400 },
        }
    }

    fn run(future: impl Future<Output = ()>) {
        use std::task::{Context, Poll, Waker};
        let mut future = std::pin::pin!(future);
        // Nothing here waits.
        assert!(matches!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(())));
    }

    #[test]
    fn a_minute_has_a_bounded_number_of_records_and_a_count() {
        run(async {
            let kept = Arc::new(Kept::default());
            let log = StrangersBounded::over(kept.clone());
            let records = || kept.0.lock().unwrap().len() as u32;
            for _ in 0..1000 {
                log.append(event(CallerKind::Anonymous, 600, "192.0.2.1")).await.unwrap();
            }
            assert_eq!(records(), RECORDS_PER_ADDRESS_AND_MINUTE_MAX);
            for n in 0..1000 {
                log.append(event(CallerKind::Anonymous, 630, &format!("192.0.2.{}", n % 250))).await.unwrap();
            }
            assert_eq!(records(), RECORDS_PER_MINUTE_MAX);
            assert!(log.lock().by_address.len() as u32 <= RECORDS_PER_MINUTE_MAX);
            log.append(event(CallerKind::User, 659, "192.0.2.1")).await.unwrap();
            assert_eq!(records(), RECORDS_PER_MINUTE_MAX + 1, "who proved who they are is always recorded");
            log.tell(at(659)).await.unwrap();
            assert_eq!(records(), RECORDS_PER_MINUTE_MAX + 1, "the minute is not over");

            // A log that is full does not forget.
            kept.1.store(true, std::sync::atomic::Ordering::Release);
            log.tell(at(660)).await.unwrap_err();
            kept.1.store(false, std::sync::atomic::Ordering::Release);
            log.append(event(CallerKind::Anonymous, 720, "192.0.2.1")).await.unwrap();
            let told = kept.0.lock().unwrap()[RECORDS_PER_MINUTE_MAX as usize + 1].outcome.clone();
            let left_out = u64::from(2000 - RECORDS_PER_MINUTE_MAX);
            assert_eq!(told, Outcome::LeftOut { requests: left_out, since: at(600) });
            assert_eq!(records(), RECORDS_PER_MINUTE_MAX + 3, "and the new minute has records of its own");
            log.tell_all(at(725)).await.unwrap();
            assert_eq!(records(), RECORDS_PER_MINUTE_MAX + 3, "nothing was left out");
        });
    }

    /// Whoever has an IPv6 network has more addresses than there are records.
    #[test]
    fn one_network_has_one_share() {
        run(async {
            let kept = Arc::new(Kept::default());
            let log = StrangersBounded::over(kept.clone());
            let records = || kept.0.lock().unwrap().len() as u32;
            for n in 0..1000 {
                let remote = format!("2001:db8:0:1:{n:x}::{n:x}");
                log.append(event(CallerKind::Anonymous, 600, &remote)).await.unwrap();
            }
            assert_eq!(records(), RECORDS_PER_ADDRESS_AND_MINUTE_MAX);
            log.append(event(CallerKind::Anonymous, 600, "2001:db8:0:2::1")).await.unwrap();
            log.append(event(CallerKind::Anonymous, 600, "192.0.2.1")).await.unwrap();
            assert_eq!(records(), RECORDS_PER_ADDRESS_AND_MINUTE_MAX + 2, "others have theirs");
        });
    }
}
