//! What the proxy connects to, by name: in namespaces of the test's own, where every address is this machine's and the
//! names are what a file says.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::raw::{Door, head};
use crate::support::Site;

const HOSTS: &str = "ARCADIA_TEST_HOSTS_FILE";
const NAMES: &str = "127.0.0.1 localhost
1.1.1.1 public.example.com
2606:4700::1111 public6.example.com
127.0.0.1 loopback.example.com
127.9.9.9 loopback9.example.com
::1 loopback6.example.com
10.1.2.3 private10.example.com
172.16.1.1 private172.example.com
192.168.1.1 private192.example.com
100.64.1.1 carrier.example.com
169.254.169.254 metadata.example.com
168.63.129.16 platform.example.com
0.0.0.0 zero.example.com
fd00::1 unique.example.com
fe80::1 link.example.com
::ffff:127.0.0.1 mapped.example.com
::127.0.0.1 compatible.example.com
64:ff9b::7f00:1 translated.example.com
64:ff9b:1::a01:203 translated-here.example.com
2002:7f00:1:: sixtofour.example.com
2001:0:7f00:1:: teredo.example.com
224.0.0.1 multicast.example.com
255.255.255.255 broadcast.example.com
1.1.1.1 mixed.example.com
127.0.0.1 mixed.example.com
2606:4700::1111 mixed6.example.com
::1 mixed6.example.com
";
/// Each is an address of the namespace's own loopback, so that a mistake is a connection and not a time-out.
const ADDRESSES: &[&str] = &[
    "1.1.1.1/32",
    "10.1.2.3/32",
    "172.16.1.1/32",
    "192.168.1.1/32",
    "100.64.1.1/32",
    "169.254.169.254/32",
    "168.63.129.16/32",
    "2606:4700::1111/128",
    "fd00::1/128",
    "64:ff9b::7f00:1/128",
    "64:ff9b:1::a01:203/128",
    "2002:7f00:1::/128",
    "2001:0:7f00:1::/128",
];

#[test]
#[allow(clippy::disallowed_methods, reason = "it tells itself where it runs")]
fn names_lead_to_public_addresses_only() {
    match std::env::var_os(HOSTS) {
        Some(hosts) => in_namespaces(Path::new(&hosts)),
        None => go_into_namespaces(),
    }
}

/// Runs this test once more, where the names and addresses are.
fn go_into_namespaces() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, NAMES).unwrap();
    let addresses: Vec<_> =
        ADDRESSES.iter().map(|address| format!("ip addr add {address} dev lo nodad")).collect();
    let script = format!(
        "set -e; ip link set lo up; {}; mount --bind '{}' /etc/hosts; exec \"$0\" \"$@\"",
        addresses.join("; ").replace("/32 dev lo nodad", "/32 dev lo"),
        hosts.display(),
    );
    let inside = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["outside::names_lead_to_public_addresses_only", "--exact", "--nocapture"])
        .env(HOSTS, &hosts)
        .output()
        .unwrap();
    let told =
        format!("{}{}", String::from_utf8_lossy(&inside.stdout), String::from_utf8_lossy(&inside.stderr));
    assert!(inside.status.success(), "{told}");
    assert!(told.contains("1 passed"), "{told}");
}

/// Listens on port 443 of every address, and notes at which of them somebody came.
fn listen() -> Arc<Mutex<BTreeSet<IpAddr>>> {
    let reached = Arc::new(Mutex::new(BTreeSet::new()));
    let listener = TcpListener::bind("[::]:443").unwrap();
    let noted = reached.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            noted.lock().unwrap().insert(stream.local_addr().unwrap().ip().to_canonical());
            let _ = stream.write_all(b"reached");
        }
    });
    reached
}

fn ask(door: &Door, target: &str) -> (String, String) {
    let mut stream = door.connect().unwrap();
    write!(stream, "CONNECT {target}:443 HTTP/1.1\r\n\r\n").unwrap();
    let answer = head(&mut stream).unwrap();
    let mut rest = String::new();
    let _ = stream.read_to_string(&mut rest);
    (answer, rest)
}

fn in_namespaces(hosts: &Path) {
    let reached = listen();
    let site = Site::start_with(&[]);
    let door = Door::of(&site);
    let refused = |target: &str| {
        let (answer, told) = ask(&door, target);
        assert!(
            answer.starts_with("HTTP/1.1 403 ") && told.contains("private network"),
            "{target}: {answer}{told}"
        );
    };
    let carried = |target: &str| {
        let (answer, told) = ask(&door, target);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}{told}");
        assert_eq!(told, "reached", "{target}");
    };
    carried("public.example.com");
    carried("PUBLIC.example.com");
    carried("public6.example.com");
    carried("1.1.1.1");
    carried("[2606:4700::1111]");
    let names: BTreeSet<_> = NAMES.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    for name in names.iter().filter(|name| !name.starts_with("public")) {
        refused(name);
    }
    for literal in LITERALS {
        refused(literal);
    }
    for odd in ODD {
        let (answer, told) = ask(&door, odd);
        assert!(!answer.starts_with("HTTP/1.1 2"), "{odd}: {answer}{told}");
    }
    // A name that was public a moment ago: each connection is checked by what the name is now.
    point(hosts, "rebinding.example.com", "1.1.1.1");
    carried("rebinding.example.com");
    point(hosts, "rebinding.example.com", "127.0.0.1");
    refused("rebinding.example.com");
    point(hosts, "rebinding.example.com", "1.1.1.1");
    carried("rebinding.example.com");
    let public: BTreeSet<IpAddr> = ["1.1.1.1", "2606:4700::1111"].map(|text| text.parse().unwrap()).into();
    assert_eq!(*reached.lock().unwrap(), public);
}

/// Writes into the file that is there: it is mounted, and another one would not be seen.
fn point(hosts: &Path, name: &str, address: &str) {
    fs::write(hosts, format!("{NAMES}{address} {name}\n")).unwrap();
}

const LITERALS: &[&str] = &[
    "127.0.0.1",
    "127.1.2.3",
    "10.1.2.3",
    "169.254.169.254",
    "100.64.1.1",
    "0.0.0.0",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::a01:203]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fd00::1]",
    "[ff02::1]",
    "localhost",
    "LOCALHOST.",
    "a.localhost",
];

/// Ways in which some programs write an address, and others a name.
const ODD: &[&str] = &[
    "127.1",
    "127.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "0177.0.0.1",
    "017700000001",
    "2130706433",
    "0",
    "127.0.0.1.",
    "127.0.0.1..",
    "127.0.0.01",
    "127.000.000.001",
    "[127.0.0.1]",
    "[::1%lo]",
    "[::1%251]",
    "[::1]]",
    "::1",
    "127.0.0.1%00.example.com",
    "127.0.0.1#.example.com",
    "public.example.com@127.0.0.1",
    "127.0.0.1:443@public.example.com",
    "localhost:443/public.example.com",
    "\u{2460}27.0.0.1",
    "loopback.example.com.",
];
