//! The places of one listener. When all are taken, a new connection gets that of the one that has waited longest for
//! its client: many who connect and then say nothing keep nobody out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::activity::Activity;
use super::limits::Limits;

/// How soon a connection that was told to give way is gone, as a rule.
const GONE_AFTER: Duration = Duration::from_millis(50);

pub struct Places {
    free: Arc<Semaphore>,
    give_way_after: Duration,
    bodies_max: usize,
    /// Bodies that the site waits for, of all connections.
    bodies: AtomicUsize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    number: u64,
    /// One entry for each place that is taken.
    by_number: HashMap<u64, Arc<Activity>>,
}

/// One connection's place, and what is known of it.
pub struct Place {
    pub activity: Arc<Activity>,
    number: u64,
    places: Arc<Places>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().by_number.remove(&self.number);
    }
}

impl Place {
    /// Runs a connection to its end, or until it is told to give way.
    pub async fn hold(self, connection: impl Future<Output = ()>) {
        tokio::select! {
            () = connection => {}
            () = self.activity.told_to_give_way() => tracing::debug!("a connection gave way to a new one"),
        }
    }
}

impl Places {
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(limits.connections_max)),
            give_way_after: limits.give_way_after,
            bodies_max: limits.bodies_max,
            bodies: AtomicUsize::new(0),
            taken: Mutex::default(),
        })
    }

    /// A place for a connection that was just accepted.
    pub async fn take(self: &Arc<Self>) -> Option<Place> {
        loop {
            let pause = if self.free.available_permits() > 0 { GONE_AFTER } else { self.make_room() };
            match tokio::time::timeout(pause, self.free.clone().acquire_owned()).await {
                Ok(permit) => return Some(self.register(permit.ok()?)),
                Err(_) => continue,
            }
        }
    }

    /// Tells the connection that has waited longest for its client to end. Returns when to look again.
    pub fn make_room(&self) -> Duration {
        let taken = self.lock();
        let waiting = taken.by_number.values().filter_map(|held| Some((held.waiting_since()?, held)));
        let Some((since, longest)) = waiting.min_by_key(|(since, _)| *since) else {
            return self.give_way_after.max(GONE_AFTER);
        };
        let waited = Instant::now().saturating_duration_since(since);
        match self.give_way_after.checked_sub(waited) {
            Some(left) if !left.is_zero() => left,
            _ => {
                longest.give_way();
                GONE_AFTER
            }
        }
    }

    /// Notes one more body that the site waits for. What came of it so far is kept meanwhile; so when there are too
    /// many, the connection with the most of them ends.
    pub fn body_awaited(&self) {
        if self.bodies.fetch_add(1, Ordering::AcqRel) < self.bodies_max {
            return;
        }
        let taken = self.lock();
        let most = taken.by_number.values().map(|held| (held.awaited(), held));
        if let Some((1.., held)) = most.max_by_key(|(awaited, _)| *awaited) {
            held.give_way();
        }
    }

    pub fn body_came(&self) {
        self.bodies.fetch_sub(1, Ordering::AcqRel);
    }

    fn register(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let activity = Arc::new(Activity::new(Arc::downgrade(self)));
        let mut taken = self.lock();
        taken.number += 1;
        let number = taken.number;
        taken.by_number.insert(number, activity.clone());
        Place { activity, number, places: self.clone(), _permit: permit }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_millis(500);

    fn places(connections_max: usize) -> Arc<Places> {
        Places::new(&Limits { connections_max, give_way_after: AFTER, ..Limits::default() })
    }

    /// Takes a place, and holds it until it is told to give it up.
    async fn enter(places: &Arc<Places>) -> Arc<Activity> {
        let place = places.take().await.unwrap();
        let activity = place.activity.clone();
        tokio::spawn(place.hold(std::future::pending()));
        activity
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_longest_gives_way() {
        let places = places(3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(enter(&places).await);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        held[0].moved();
        let newcomer = enter(&places).await;
        let there = |activity: &Arc<Activity>| {
            places.lock().by_number.values().any(|other| Arc::ptr_eq(activity, other))
        };
        assert_eq!(held.iter().map(there).collect::<Vec<_>>(), [true, false, true]);
        assert!(there(&newcomer));
        assert_eq!(places.lock().by_number.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_served_or_came_just_now_does_not() {
        let places = places(2);
        let busy = enter(&places).await;
        let running = busy.begin();
        tokio::time::sleep(Duration::from_secs(9)).await;
        let fresh = enter(&places).await;
        let begun = Instant::now();
        let newcomer = enter(&places).await;
        assert!(begun.elapsed() >= AFTER, "{:?}", begun.elapsed());
        assert!(fresh.waiting_since().is_none(), "it gave way");
        // Now both work for their clients, for as long as it takes.
        let _also = newcomer.begin();
        assert!(tokio::time::timeout(Duration::from_secs(60), enter(&places)).await.is_err());
        // A request that waits for its client's body does not count.
        let _body = busy.awaiting();
        enter(&places).await;
        assert_eq!(busy.now().running, 1);
        drop(running);
    }

    #[tokio::test(start_paused = true)]
    async fn thousands_who_say_nothing_keep_nobody_out() {
        let places = places(100);
        for _ in 0..5_000 {
            enter(&places).await;
            assert!(places.lock().by_number.len() <= 100);
        }
        let begun = Instant::now();
        enter(&places).await;
        assert!(begun.elapsed() <= AFTER + GONE_AFTER);
    }

    #[tokio::test(start_paused = true)]
    async fn who_makes_the_site_wait_for_most_bodies_gives_way() {
        let places = places(3);
        let modest = enter(&places).await;
        let greedy = enter(&places).await;
        let _one = modest.awaiting();
        let many: Vec<_> = (1..Limits::default().bodies_max).map(|_| greedy.awaiting()).collect();
        assert_eq!(places.lock().by_number.len(), 2);
        let _one_more = modest.awaiting();
        assert_eq!((modest.awaited(), greedy.awaited()), (2, 0), "the greedy one is told to go");
        tokio::time::sleep(GONE_AFTER).await;
        assert_eq!(places.lock().by_number.len(), 1);
        drop(many);
        assert_eq!(places.bodies.load(Ordering::Acquire), 2);
    }
}
