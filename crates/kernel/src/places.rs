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
/// again: who has had a place for this long then gives way, however lately it went on. From then on one each time that
/// one would be gone, so that a queue of such clients moves; of those with something under way one in all this time, so
/// that more clients than there are places do not keep cutting one another.
const GIVE_WAY_TIMES_MAX: u32 = 4;
/// How soon a connection that was told to give way is gone, as a rule.
const GONE_AFTER: Duration = Duration::from_millis(50);

/// What is known of a client, as far as its place is concerned.
pub trait Waited: Send + Sync + 'static {
    /// Since when the client is waited for. `None` while it is served: it keeps its place.
    fn waited_since(&self) -> Option<Instant>;

    /// Whether something is on its way to or from the client while it is waited for: cut off there, it would be lost.
    fn is_under_way(&self) -> bool {
        false
    }
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
    /// Since when clients come in vain: nobody gets a place, and who is waited for has only just gone on.
    kept_since: Option<Instant>,
    /// When the last one that had only just gone on, with nothing under way, was told to give way.
    cut_at: Option<Instant>,
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

impl<V: Waited> Taker<V> {
    /// Since when it may be told to give way. A client is not waited for before it has its place.
    fn waited_since(&self) -> Option<Instant> {
        if self.is_told {
            return None;
        }
        Some(self.visitor.waited_since()?.max(self.since))
    }
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
            taken: Mutex::new(Taken { number: 0, by_number: HashMap::new(), kept_since: None, cut_at: None }),
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
        let Taken { by_number, kept_since, cut_at, .. } = &mut *taken;
        let is_one_leaving = by_number.values().any(|taker| taker.is_told);
        let waited = by_number.values_mut().filter_map(|taker| Some((taker.waited_since()?, taker)));
        let Some((since, longest)) = waited.min_by_key(|(since, _)| *since) else {
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
        let last_cut = cut_at.filter(|at| now < *at + patience);
        let kept_until = *kept_since.get_or_insert(now) + patience;
        let pause = last_cut.map_or(kept_until, |at| at + GONE_AFTER).saturating_duration_since(now);
        if !pause.is_zero() {
            return Some(left.min(pause));
        }
        let may_cut = |taker: &&mut Taker<V>| {
            taker.since + patience <= now && (kept_until <= now || !taker.visitor.is_under_way())
        };
        let stayed = by_number.values_mut().filter(may_cut);
        let waited = stayed.filter_map(|taker| {
            let since = taker.waited_since()?;
            Some(((taker.visitor.is_under_way(), since), taker))
        });
        let Some(((is_under_way, _), longest)) = waited.min_by_key(|(rank, _)| *rank) else {
            return Some(left);
        };
        (*kept_since, *cut_at) = (None, (!is_under_way).then_some(now));
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
        if self.free.available_permits() == 0 { self.make_room() } else { Some(GONE_AFTER) }
    }

    async fn take_within(self: &Arc<Self>, pause: Duration, visitor: &Arc<V>) -> Option<Place<V>> {
        // The semaphore is never closed, so that an error is a place that did not become free in time.
        let permit = tokio::time::timeout(pause, self.free.clone().acquire_owned()).await.ok()?.ok()?;
        let leave = Arc::new(Notify::new());
        let (visitor, since) = (visitor.clone(), Instant::now());
        let taker = Taker { visitor, since, is_told: false, leave: leave.clone() };
        let mut taken = self.lock();
        taken.kept_since = None;
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
        // The first waits until it is clear that nobody makes room; it is clear then.
        let patience = GIVE_WAY_AFTER * GIVE_WAY_TIMES_MAX;
        for (least, most) in [(patience, patience + GONE_AFTER), (Duration::ZERO, 2 * GONE_AFTER)] {
            let begun = Instant::now();
            let entered = tokio::time::timeout(most, enter(&places)).await;
            let entered = entered.unwrap_or_else(|_| panic!("kept out for {most:?}"));
            assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
            tokio::spawn(async move {
                loop {
                    entered.advanced();
                    tokio::time::sleep(GIVE_WAY_AFTER / 2).await;
                }
            });
        }
        // Served for long, one stays whatever comes.
        let last = held.iter().find(|progress| is_there(&places, progress)).unwrap();
        let _serving = last.serving();
        tokio::time::sleep(Duration::from_secs(9)).await;
        for _ in 0..9 {
            enter(&places).await;
        }
        assert!(is_there(&places, last));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_came_in_vain_long_ago_do_not_count() {
        let places = places(1);
        let first = enter(&places).await;
        // One comes in vain for a moment, and has a place when the first leaves.
        let (second, ()) = tokio::join!(enter(&places), async {
            tokio::time::sleep(GIVE_WAY_AFTER / 2).await;
            first.advanced();
            tokio::time::sleep(GIVE_WAY_AFTER / 4).await;
            places.end_greatest(|_| Some(0));
        });
        let serving = second.serving();
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(serving);
        assert_eq!(places.make_room(), Some(GIVE_WAY_AFTER));
        assert!(is_there(&places, &second));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_for_a_place_has_it_before_it_is_waited_for() {
        let places = places(1);
        let serving = enter(&places).await.serving();
        let (entered, ()) = tokio::join!(enter(&places), async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            places.end_greatest(|_| Some(0));
        });
        assert_eq!(places.make_room(), Some(GIVE_WAY_AFTER));
        assert!(is_there(&places, &entered));
        drop(serving);
    }

    /// Goes on all the time, with or without something under way.
    struct Busy(bool);

    impl Waited for Busy {
        fn waited_since(&self) -> Option<Instant> {
            Some(Instant::now())
        }

        fn is_under_way(&self) -> bool {
            self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_go_on_give_way_one_at_a_time() {
        let patience = GIVE_WAY_AFTER * GIVE_WAY_TIMES_MAX;
        for (is_under_way, pause) in [(false, GONE_AFTER), (true, patience)] {
            let places = Places::new(3, GIVE_WAY_AFTER);
            let mut held = Vec::new();
            for _ in 0..3 {
                held.push(places.take(Arc::new(Busy(is_under_way))).await);
            }
            for (left, pause) in [(3, patience), (2, pause), (1, pause)] {
                for _ in 0..3 {
                    assert!(places.make_room().is_some());
                    assert_eq!(places.held(), left);
                }
                tokio::time::sleep(pause).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_cut_last() {
        let places = Places::new(4, GIVE_WAY_AFTER);
        let enter = async |is_under_way| {
            let place = places.take(Arc::new(Busy(is_under_way))).await;
            tokio::spawn(async move { place.hold(std::future::pending::<()>()).await });
        };
        for is_under_way in [true, false, true, false] {
            enter(is_under_way).await;
        }
        for idle in [1, 0, 0] {
            enter(true).await;
            let taken = places.lock();
            let there = taken.by_number.values().filter(|taker| !taker.is_told && !taker.visitor.0);
            assert_eq!(there.count(), idle);
        }
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
