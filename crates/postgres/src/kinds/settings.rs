//! `configurations`: a few settings that clients ask about, read from the server itself.

use std::sync::Arc;

use arcadia_arm::{Arm, RESOURCES};
use arcadia_kernel::{ArmId, At, Fault, Method, Op, Permit, Reply, Request, action, op};
use serde_json::{Value, json};

use super::server;
use super::{Flexible, Generation, Single};
use crate::Postgres;
use crate::cluster::sql;
use crate::records::{StoredServer, stored};

action!(pub ReadSingle, Control, "Microsoft.DBforPostgreSQL/servers/configurations/read");
action!(pub ReadFlexible, Control, "Microsoft.DBforPostgreSQL/flexibleServers/configurations/read");

const SINGLE: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.DBforPostgreSQL/servers/{server}/configurations/{name?}";
const FLEXIBLE: &str = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.DBforPostgreSQL/flexibleServers/{server}/configurations/{name?}";

pub(super) fn single_ops(postgres: &Arc<Postgres>) -> Vec<Op<Arm>> {
    let postgres = postgres.clone();
    vec![op(
        "PostgresServerSettings",
        Method::GET,
        SINGLE,
        move |_: At<Arm>, _: Permit<ReadSingle>, request: Request| {
            let postgres = postgres.clone();
            async move { answer(&postgres, Single::SERVERS, &request).await }
        },
    )]
}

pub(super) fn flexible_ops(postgres: &Arc<Postgres>) -> Vec<Op<Arm>> {
    let postgres = postgres.clone();
    vec![op(
        "PostgresFlexibleServerSettings",
        Method::GET,
        FLEXIBLE,
        move |_: At<Arm>, _: Permit<ReadFlexible>, request: Request| {
            let postgres = postgres.clone();
            async move { answer(&postgres, Flexible::SERVERS, &request).await }
        },
    )]
}

async fn answer(postgres: &Postgres, type_name: &str, request: &Request) -> Result<Reply, Fault> {
    let (subscription, group) = (request.param("subscription"), request.param("group"));
    let path = format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{type_name}");
    let missing = |what: String| Fault::not_found("ResourceNotFound", format!("The {what} was not found."));
    let id = ArmId::parse(&path).and_then(|servers| servers.join(request.param("server")));
    let id = id.map_err(|_| missing("server".to_owned()))?;
    let row = postgres.store.get(RESOURCES, &id).await?;
    let row = row.ok_or_else(|| missing(format!("server '{}'", id.name())))?;
    let server: StoredServer = stored(&row.value)?;
    server::check_complete(&server)?;
    let client = server::session(postgres, &server).await?;
    let settings = sql::settings(&client).await?;
    let view = |(name, properties): (String, Value)| {
        let kind = format!("{type_name}/configurations");
        json!({ "id": format!("{}/configurations/{name}", row.value.id), "name": name, "type": kind, "properties": properties })
    };
    let wanted = request.param("name");
    if wanted.is_empty() {
        let all: Vec<Value> = settings.into_iter().map(view).collect();
        return Reply::ok(&json!({ "value": all }));
    }
    let found = settings.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    Reply::ok(&view(found.ok_or_else(|| missing("setting".to_owned()))?))
}
