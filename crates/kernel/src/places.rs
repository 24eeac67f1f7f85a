//! The places of one listener. When all are taken, a new client gets that of the one that has kept the listener
//! waiting for longest: many who connect and then say little keep nobody out, and who is served is never cut.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long a client may keep a full listener waiting: time enough to go on.
pub const GIVE_WAY_AFTER: Duration = Duration::from_millis(500);
/// A listener to which clients come in vain for this many times as long is full of those who do a little again and
/// again: from then on, who has had a place for this long gives way, however lately it went on.
const GIVE_WAY_TIMES_MAX: u32 = 4;
/// How soon a connection that was told to give way is gone, as a rule.
const GONE_AFTER: Duration = Duration::from_millis(50);

/// What is known of a client, as far as its place is concerned.
pub trait Waited: Send + Sync + 'static {
    /// Since when the client is waited for. `None` while it is served: it keeps its place.
    fn waited_since(&self) -> Option<Instant>;
}

/// As many places as there are, and who has them.
pub struct Places<V> {
    free: Arc<Semaphore>,
    give_way_after: Duration,
    taken: Mutex<Taken<V>>,
}

struct Taken<V> {
    number: u64,
    /// One entry for each place that is taken.
    by_number: HashMap<u64, Taker<V>>,
    /// Since when clients come in vain: all places are taken, and who is waited for has only just gone on.
    kept_since: Option<Instant>,
}

struct Taker<V> {
    visitor: Arc<V>,
    since: Instant,
    /// Told to give way, and about to be gone.
    is_told: bool,
    leave: Arc<Notify>,
}

impl<V> Taker<V> {
    fn tell(&mut self) {
        self.is_told = true;
        self.leave.notify_one();
    }
}

/// Who is waited for the longest, of those who `may` be told to give way.
fn longest_waited<V: Waited>(
    by_number: &mut HashMap<u64, Taker<V>>,
    may: impl Fn(&Taker<V>) -> bool,
) -> Option<(Instant, &mut Taker<V>)> {
    let takers = by_number.values_mut().filter(|taker| !taker.is_told && may(taker));
    takers.filter_map(|taker| Some((taker.visitor.waited_since()?, taker))).min_by_key(|(since, _)| *since)
}

/// One client's place, for as long as this lives.
pub struct Place<V> {
    number: u64,
    places: Arc<Places<V>>,
    leave: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

impl<V> Drop for Place<V> {
    fn drop(&mut self) {
        self.places.lock().by_number.remove(&self.number);
    }
}

impl<V> Place<V> {
    /// Runs what the place was taken for to its end; `None` when the place was needed for another client.
    pub async fn hold<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.leave.notified() => None,
        }
    }
}

impl<V> Places<V> {
    fn lock(&self) -> MutexGuard<'_, Taken<V>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Waited> Places<V> {
    pub fn new(places_max: usize, give_way_after: Duration) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(places_max.max(1))),
            give_way_after,
            taken: Mutex::new(Taken { number: 0, by_number: HashMap::new(), kept_since: None }),
        })
    }

    /// A place for a client that is there already, as soon as there is one.
    pub async fn take(self: &Arc<Self>, visitor: Arc<V>) -> Place<V> {
        loop {
            let pause = self.look().unwrap_or(self.give_way_after.max(GONE_AFTER));
            if let Some(place) = self.take_within(pause, &visitor).await {
                return place;
            }
        }
    }

    /// The same, unless everyone who has a place is served.
    pub async fn take_of_waiting(self: &Arc<Self>, visitor: Arc<V>) -> Option<Place<V>> {
        loop {
            if let Some(place) = self.take_within(self.look()?, &visitor).await {
                return Some(place);
            }
        }
    }

    /// Tells the client that was waited for the longest to end. Returns when to look again, or `None` when nobody is
    /// waited for or about to leave.
    pub fn make_room(&self) -> Option<Duration> {
        let mut taken = self.lock();
        let Taken { by_number, kept_since, .. } = &mut *taken;
        let is_one_leaving = by_number.values().any(|taker| taker.is_told);
        let Some((since, longest)) = longest_waited(by_number, |_| true) else {
            *kept_since = None;
            return is_one_leaving.then_some(GONE_AFTER);
        };
        let now = Instant::now();
        let left = (since + self.give_way_after).saturating_duration_since(now);
        if left.is_zero() {
            *kept_since = None;
            longest.tell();
            return Some(GONE_AFTER);
        }
        let patience = self.give_way_after * GIVE_WAY_TIMES_MAX;
        let patience_left = (*kept_since.get_or_insert(now) + patience).saturating_duration_since(now);
        if !patience_left.is_zero() {
            return Some(left.min(patience_left));
        }
        let Some((_, longest)) = longest_waited(by_number, |taker| taker.since + patience <= now) else {
            return Some(left);
        };
        longest.tell();
        Some(GONE_AFTER)
    }

    /// Tells the client with the greatest `rank` to end, whether it is served or not; `None` ranks nowhere.
    pub fn end_greatest<R: Ord>(&self, rank: impl Fn(&V) -> Option<R>) {
        let mut taken = self.lock();
        let ranked = taken.by_number.values_mut().filter(|taker| !taker.is_told);
        let ranked = ranked.filter_map(|taker| Some((rank(&taker.visitor)?, taker)));
        if let Some((_, greatest)) = ranked.max_by(|(one, _), (other, _)| one.cmp(other)) {
            greatest.tell();
        }
    }

    /// How many have a place, and are not about to leave it.
    pub fn held(&self) -> usize {
        self.lock().by_number.values().filter(|taker| !taker.is_told).count()
    }

    fn look(&self) -> Option<Duration> {
        if self.free.available_permits() == 0 {
            return self.make_room();
        }
        self.lock().kept_since = None;
        Some(GONE_AFTER)
    }

    async fn take_within(self: &Arc<Self>, pause: Duration, visitor: &Arc<V>) -> Option<Place<V>> {
        // The semaphore is never closed, so that an error is a place that did not become free in time.
        let permit = tokio::time::timeout(pause, self.free.clone().acquire_owned()).await.ok()?.ok()?;
        let leave = Arc::new(Notify::new());
        let (visitor, since) = (visitor.clone(), Instant::now());
        let taker = Taker { visitor, since, is_told: false, leave: leave.clone() };
        let mut taken = self.lock();
        taken.number += 1;
        let number = taken.number;
        taken.by_number.insert(number, taker);
        Some(Place { number, places: self.clone(), leave, _permit: permit })
    }
}

/// How far a client came, where that is all that is to be known of it.
pub struct Progress(Mutex<Came>);

struct Came {
    at: Instant,
    serving: usize,
}

impl Progress {
    /// Of a client that has just come.
    pub fn begin() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Came { at: Instant::now(), serving: 0 })))
    }

    /// The client has done what it was waited for, and is waited for again. Single bytes are no progress: who
    /// trickles them would keep its place.
    pub fn advanced(&self) {
        self.lock().at = Instant::now();
    }

    /// The client is served for as long as the result lives.
    pub fn serving(self: &Arc<Self>) -> Serving {
        self.lock().serving += 1;
        Serving(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Came> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waited for Progress {
    fn waited_since(&self) -> Option<Instant> {
        let came = self.lock();
        (came.serving == 0).then_some(came.at)
    }
}

/// See [`Progress::serving`].
pub struct Serving(Arc<Progress>);

impl Drop for Serving {
    fn drop(&mut self) {
        let mut came = self.0.lock();
        came.serving -= 1;
        came.at = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(places_max: usize) -> Arc<Places<Progress>> {
        Places::new(places_max, GIVE_WAY_AFTER)
    }

    /// Takes a place, and holds it until it is told to give it up.
    async fn enter(places: &Arc<Places<Progress>>) -> Arc<Progress> {
        let progress = Progress::begin();
        let place = places.take(progress.clone()).await;
        tokio::spawn(async move { place.hold(std::future::pending::<()>()).await });
        progress
    }

    fn is_there(places: &Places<Progress>, progress: &Arc<Progress>) -> bool {
        let taken = places.lock();
        taken.by_number.values().any(|other| !other.is_told && Arc::ptr_eq(progress, &other.visitor))
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_waited_for_longest_gives_way() {
        let places = places(3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(enter(&places).await);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        held[0].advanced();
        let newcomer = enter(&places).await;
        let there = held.iter().map(|progress| is_there(&places, progress));
        assert_eq!(there.collect::<Vec<_>>(), [true, false, true]);
        assert!(is_there(&places, &newcomer));
        assert_eq!(places.held(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_served_or_came_just_now_does_not() {
        let places = places(2);
        let served = enter(&places).await;
        let serving = served.serving();
        tokio::time::sleep(Duration::from_secs(9)).await;
        let fresh = enter(&places).await;
        let begun = Instant::now();
        let newcomer = enter(&places).await;
        assert!(begun.elapsed() >= GIVE_WAY_AFTER, "{:?}", begun.elapsed());
        assert!(is_there(&places, &served) && !is_there(&places, &fresh));
        // Now both are served, for as long as it takes.
        let also = newcomer.serving();
        assert!(tokio::time::timeout(Duration::from_secs(60), enter(&places)).await.is_err());
        assert!(places.take_of_waiting(Progress::begin()).await.is_none());
        drop(also);
        assert!(places.take_of_waiting(Progress::begin()).await.is_some());
        assert!(is_there(&places, &served) && !is_there(&places, &newcomer));
        drop(serving);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_told_may_take_a_while_to_leave() {
        let (places, slow) = (places(1), Duration::from_secs(5));
        let place = places.take(Progress::begin()).await;
        tokio::spawn(async move {
            place.hold(std::future::pending::<()>()).await;
            tokio::time::sleep(slow).await;
            drop(place);
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        assert!(places.take_of_waiting(Progress::begin()).await.is_some());
        assert!(begun.elapsed() >= slow);
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
        assert!(begun.elapsed() <= GIVE_WAY_AFTER + GONE_AFTER);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_a_little_again_and_again_keeps_nobody_out() {
        let places = places(3);
        let held = [enter(&places).await, enter(&places).await, enter(&places).await];
        let trickling = held.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(GIVE_WAY_AFTER / 2).await;
                // One is also served now and then, which is no different.
                drop(trickling[0].serving());
                trickling[1..].iter().for_each(|progress| progress.advanced());
            }
        });
        // The first waits until it is clear that nobody makes room, and those after it no more.
        for bound in [Duration::from_secs(2), Duration::ZERO] {
            let entered = tokio::time::timeout(bound + GONE_AFTER, enter(&places)).await;
            entered.unwrap_or_else(|_| panic!("kept out for {bound:?}")).advanced();
        }
        assert_eq!(held.iter().filter(|progress| is_there(&places, progress)).count(), 1);
        // Served for long, it stays whatever comes.
        let last = held.iter().find(|progress| is_there(&places, progress)).unwrap();
        let _serving = last.serving();
        tokio::time::sleep(Duration::from_secs(9)).await;
        for _ in 0..9 {
            enter(&places).await;
        }
        assert!(is_there(&places, last));
    }

    #[tokio::test(start_paused = true)]
    async fn the_greatest_is_told_whatever_it_does() {
        let places = places(3);
        let (one, other) = (enter(&places).await, enter(&places).await);
        let _serving = (one.serving(), other.serving(), other.serving());
        places.end_greatest(|progress| Some(progress.lock().serving).filter(|serving| *serving > 1));
        assert!(is_there(&places, &one) && !is_there(&places, &other));
        places.end_greatest(|progress| Some(progress.lock().serving).filter(|serving| *serving > 1));
        assert!(is_there(&places, &one));
    }
}
