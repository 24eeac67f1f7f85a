//! Eight processes that show one challenge at the same moment: one is given a token.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Barrier;

use arcadia_agent::HimdsLimits;
use arcadia_races::{THREADS, rounds};

use crate::bench::Daemon;
use crate::machine::{Bench, TOKEN, secret};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_challenge_file_is_used_by_one() {
    let bench = Bench::new().await;
    bench.connect().await;
    let mut options = bench.options();
    options.limits = HimdsLimits { identity_per_second: 1_000_000, ..options.limits };
    let daemon = Daemon::start(options).await;
    let address = daemon.addresses[0];
    for round in 0..rounds() {
        let secret = secret(&daemon).await;
        let request = format!(
            "GET {TOKEN} HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\nAuthorization: Basic {secret}\r\n\
             Connection: close\r\n\r\n"
        );
        let statuses = tokio::task::spawn_blocking(move || {
            let start = Barrier::new(THREADS);
            let ask = || {
                let mut stream = TcpStream::connect(address).unwrap();
                start.wait();
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer.split(' ').nth(1).unwrap().to_owned()
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            })
        });
        let statuses = statuses.await.unwrap();
        let count = |status: &str| statuses.iter().filter(|found| *found == status).count();
        assert_eq!((count("200"), count("401")), (1, THREADS - 1), "round {round}: {statuses:?}");
    }
    daemon.stop().await;
}
