//! How much of a listener one client may take, and for how long. In one place, so that tests can be quicker than the
//! clocks of real sites.

use std::time::Duration;

/// What holds for every connection of the proxy, of its socket, and of the listener for names.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most connections at a time, of each listener.
    pub connections_max: usize,
    /// Once all places are taken, the connection that has waited longest for its client gives way to a new one, but
    /// not before it has waited for this long: time enough for a client to go on.
    pub give_way_after: Duration,
    /// For the first lines of a client of the proxy.
    pub connect_head_timeout: Duration,
    pub handshake_timeout: Duration,
    /// Longest head of a request: room for the largest token and the longest target.
    pub head_bytes_max: usize,
    /// From the first byte of a head to its last, in HTTP/1.
    pub head_timeout: Duration,
    /// Between two requests, and for an answer that its client does not take. Clients keep connections for a minute
    /// or more and fail when one ends under a new request.
    pub idle_timeout: Duration,
    /// Requests at a time on one connection of HTTP/2.
    pub streams_max: u32,
    /// Bodies that a listener waits for at a time, of all its connections: what came of them is kept meanwhile.
    pub bodies_max: usize,
    pub body: BodyPace,
    /// For a tunnel to the outside in which nothing moves.
    pub tunnel_idle_timeout: Duration,
}

/// How fast a request body must arrive. Only the time counts in which the site waits for its client.
#[derive(Clone, Copy, Debug)]
pub struct BodyPace {
    /// The longest silence.
    pub idle_timeout: Duration,
    /// What a body may take beside the time that its bytes are given.
    pub grace: Duration,
    /// The least average rate: that of eight uploads side by side on a line of one megabit per second.
    pub bytes_per_second_min: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            give_way_after: arcadia_kernel::GIVE_WAY_AFTER,
            connect_head_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            head_bytes_max: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(100),
            streams_max: 64,
            bodies_max: 1024,
            body: BodyPace::default(),
            tunnel_idle_timeout: Duration::from_secs(10 * 60),
        }
    }
}

impl Default for BodyPace {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(30),
            bytes_per_second_min: 16 * 1024,
        }
    }
}

impl BodyPace {
    /// How long the site waits in all for a body of which `bytes` have come.
    pub fn patience(&self, bytes: u64) -> Duration {
        self.grace + Duration::from_secs_f64(bytes as f64 / f64::from(self.bytes_per_second_min.max(1)))
    }
}
