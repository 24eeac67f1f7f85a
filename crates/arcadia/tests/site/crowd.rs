//! Ten thousand clients at once, who connect and then say little or nothing.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::hostile::memory;
use crate::raw::{ARM_HOST, Door, PATIENCE};
use crate::support::Site;

const CROWD: usize = 10_000;
/// Files that a test needs beside the crowd's.
const OTHER_FILES: u64 = 200;
const THREADS: usize = 16;
/// What the crowd may cost the site, in KiB: a full house of 1024 in the middle of TLS, with room to spare.
const GROWTH_KIB_MAX: u64 = 192 * 1024;

pub fn raise_file_limit(crowd: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let needed = crowd as u64 + OTHER_FILES;
    let enough = limit.maximum.is_none_or(|maximum| maximum >= needed);
    assert!(enough, "this test needs {needed} open files, and `ulimit -Hn` is {:?}: raise it", limit.maximum);
}

/// One of the crowd, who may go as far as the middle of TLS, or all the way to an idle connection.
fn member(door: &Door, at: usize) -> Option<TcpStream> {
    let mut stream = door.connect().ok()?;
    let said: &[u8] = match at % 4 {
        0 => b"",
        1 => b"CONN",
        2 => b"CONNECT management.azure.com:443 HTTP/1.1\r\n\r\n",
        _ => b"CONNECT management.azure.com:443 HTTP/1.1\r\n\r\n\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    };
    // The site may have shown it the door already.
    let _ = stream.write_all(said);
    Some(stream)
}

/// How long a well-behaved client took that tries until it is served.
fn served(door: &Door) -> Duration {
    let begun = Instant::now();
    loop {
        match door.is_served() {
            Ok(()) => return begun.elapsed(),
            Err(error) => assert!(begun.elapsed() < PATIENCE, "not served any more: {error}"),
        }
    }
}

#[test]
fn ten_thousand_who_say_little_keep_nobody_out() {
    raise_file_limit(CROWD);
    let site = Site::start();
    let door = Door::of(&site);
    door.is_served().unwrap();
    let before = memory(&site);
    let begun = Instant::now();
    let (crowd, waits) = std::thread::scope(|scope| {
        let arriving: Vec<_> = (0..THREADS)
            .map(|thread| {
                let door = &door;
                let members = (thread..CROWD).step_by(THREADS);
                scope.spawn(move || members.filter_map(|at| member(door, at)).collect::<Vec<_>>())
            })
            .collect();
        let mut waits = Vec::new();
        while waits.is_empty() || arriving.iter().any(|thread| !thread.is_finished()) {
            waits.push(served(&door));
        }
        let crowd: Vec<_> = arriving.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (crowd, waits)
    });
    let arrived = begun.elapsed();
    assert_eq!(crowd.len(), CROWD, "not everyone could connect");
    // Some who go all the way, and then do nothing with it.
    let idle: Vec<_> = (0..300).filter_map(|_| door.tls(ARM_HOST, b"h2").ok()).collect();
    let full_house = served(&door);
    let during = memory(&site);
    let open = std::fs::read_dir(format!("/proc/{}/fd", site.pid())).unwrap().count();
    drop((crowd, idle));
    let afterwards = served(&door);
    let after = memory(&site);
    eprintln!(
        "{CROWD} came within {arrived:.1?}; meanwhile {} clients were served, the last of them within {:.1?}, and \
         with a full house within {full_house:.1?}, afterwards within {afterwards:.1?}; {open} files open; \
         memory {before} KiB before, {during} KiB during, {after} KiB after",
        waits.len(),
        waits.last().unwrap(),
    );
    assert!(open < 1300, "{open} files are open");
    assert!(during.saturating_sub(before) < GROWTH_KIB_MAX, "{before} KiB before and {during} KiB during it");
}
