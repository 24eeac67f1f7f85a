//! Clients that take what a server has room for, and do not sign in.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_postgres::{Client, Error, NoTls};

use crate::world::{PASSWORD, World, single, single_body};

/// As many as one server takes at a time.
const SESSIONS_MAX: usize = 90;

async fn sign_in(world: &World) -> Result<Client, Error> {
    let mut config = tokio_postgres::Config::new();
    config.user("arcadmin@pg-d").password(PASSWORD).dbname("postgres");
    let stream = TcpStream::connect(world.gateway).await.unwrap();
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Goes as far as being asked for a proof, and gives none.
async fn ask(world: &World) -> TcpStream {
    let body = b"\0\x03\0\0user\0arcadmin@pg-d\0database\0postgres\0\0";
    let packet = [&(body.len() as u32 + 4).to_be_bytes()[..], body].concat();
    let mut stream = TcpStream::connect(world.gateway).await.unwrap();
    stream.write_all(&packet).await.unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"R", "it is not asked for a proof");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_sign_in_keeps_nobody_out_and_who_did_stays() {
    let world = World::new().await;
    let server = single("pg-d");
    world.server(&server, single_body("Disabled")).await;
    world.admit(&server, "127.0.0.1", "127.0.0.1").await;
    let first = sign_in(&world).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..SESSIONS_MAX * 2 {
        silent.push(ask(&world).await);
    }
    // The first of them had to go, and were told.
    let mut told = Vec::new();
    silent[0].read_to_end(&mut told).await.unwrap();
    assert!(String::from_utf8_lossy(&told).contains("too many clients already"), "{told:?}");
    // All places are for who signs in, and for nobody after that.
    let mut signed_in = vec![first];
    while signed_in.len() < SESSIONS_MAX {
        signed_in.push(sign_in(&world).await.unwrap());
    }
    let refused = sign_in(&world).await.err().unwrap();
    assert_eq!(refused.code().map(|code| code.code()), Some("53300"), "{refused}");
    for client in &signed_in {
        assert_eq!(client.query_one("SELECT 7", &[]).await.unwrap().get::<_, i32>(0), 7);
    }
    world.postgres.stop().await;
}
