//! The bodies that a listener waits for: what came of them so far is kept meanwhile, so there is a bound on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arcadia_kernel::Places;

use super::activity::Activity;
use super::limits::Limits;

/// Of all connections of one listener.
pub struct Bodies {
    places: Arc<Places<Activity>>,
    max: usize,
    awaited: AtomicUsize,
}

impl Bodies {
    pub fn new(limits: &Limits, places: Arc<Places<Activity>>) -> Arc<Self> {
        Arc::new(Self { places, max: limits.bodies_max, awaited: AtomicUsize::new(0) })
    }

    /// Notes one more. When there are too many, the connection with the most of them ends.
    pub fn awaited(&self) {
        if self.awaited.fetch_add(1, Ordering::AcqRel) >= self.max {
            self.places.end_greatest(|activity| Some(activity.now().awaited).filter(|awaited| *awaited > 0));
        }
    }

    pub fn came(&self) {
        self.awaited.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arcadia_kernel::Waited as _;

    use super::*;

    async fn enter(places: &Arc<Places<Activity>>, bodies: &Arc<Bodies>) -> Arc<Activity> {
        let activity = Arc::new(Activity::new(Arc::downgrade(bodies)));
        let place = places.take(activity.clone()).await;
        tokio::spawn(async move { place.hold(std::future::pending::<()>()).await });
        activity
    }

    #[tokio::test(start_paused = true)]
    async fn who_makes_the_site_wait_for_most_of_them_gives_way() {
        let limits = Limits::default();
        let places = Places::new(3, limits.give_way_after);
        let bodies = Bodies::new(&limits, places.clone());
        let modest = enter(&places, &bodies).await;
        let greedy = enter(&places, &bodies).await;
        let _one = modest.awaiting();
        let many: Vec<_> = (1..limits.bodies_max).map(|_| greedy.awaiting()).collect();
        assert_eq!(places.held(), 2);
        let _one_more = modest.awaiting();
        assert_eq!(places.held(), 1, "the greedy one is told to go");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(Arc::strong_count(&modest), 2 + 2, "the modest one keeps its place, and its bodies");
        drop(many);
        assert_eq!(bodies.awaited.load(Ordering::Acquire), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_body_is_waited_for_is_not_served() {
        let bodies = Bodies::new(&Limits::default(), Places::new(3, Duration::ZERO));
        let activity = Arc::new(Activity::new(Arc::downgrade(&bodies)));
        let _running = activity.begin();
        assert!(activity.waited_since().is_none());
        let _awaiting = activity.awaiting();
        assert!(activity.waited_since().is_some());
        let _other = activity.begin();
        assert!(activity.waited_since().is_none());
    }
}
