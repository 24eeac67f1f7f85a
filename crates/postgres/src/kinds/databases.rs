//! Databases of a server: really created, really dropped.

use std::marker::PhantomData;
use std::sync::Arc;

use arcadia_arm::{Desired, NameRule, Plan, RESOURCES, Resource, ResourceKind};
use arcadia_kernel::{ArmId, Fault};
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::Generation;
use super::server::{self, Asked};
use crate::Postgres;
use crate::cluster::sql;
use crate::fault::invalid;
use crate::records::{StoredDatabase, StoredServer, stored, to_stored};

/// Databases of one server that are made through the resource manager.
const DATABASES_MAX: usize = 256;
/// Databases that every server has and that are nobody's.
const KEPT: [&str; 5] = ["postgres", "template0", "template1", "azure_maintenance", "azure_sys"];
/// From this version on, how text is ordered does not hang on the locales that the site's machine has.
const ICU_MAJOR_MIN: u32 = 15;

/// `42704`, `22023`: the server does not know the collation.
const UNKNOWN_COLLATION: [&str; 3] = ["42704", "22023", "42809"];

pub(crate) struct Databases<G> {
    postgres: Arc<Postgres>,
    generation: PhantomData<fn() -> G>,
}

impl<G: Generation> Databases<G> {
    pub(super) fn new(postgres: Arc<Postgres>) -> Self {
        Self { postgres, generation: PhantomData }
    }

    async fn server(&self, database: &ArmId) -> Result<StoredServer, Fault> {
        server_of(&self.postgres, database).await
    }
}

/// The server that a nested resource is in.
pub(super) async fn server_of(postgres: &Postgres, nested: &ArmId) -> Result<StoredServer, Fault> {
    let server = nested.parent().and_then(|types| types.parent());
    let server = server.ok_or_else(|| Fault::internal("a nested resource is in no server"))?;
    let row = postgres.store.get(RESOURCES, &server).await?;
    let row = row.ok_or_else(|| {
        Fault::not_found("ResourceNotFound", format!("The server '{}' was not found.", server.name()))
    })?;
    stored(&row.value)
}

fn fits(name: &str) -> bool {
    !name.starts_with("pg_")
        && !KEPT.contains(&name)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}

/// The end of `CREATE DATABASE` for a collation as clients name it. Windows' names, which the older service shows,
/// and the locales of Linux both mean an order that Unicode's own tables have.
fn locale(collation: &str, major: u32) -> Option<String> {
    const PLAIN: &str = "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'";
    let folded = collation.to_ascii_lowercase();
    let name = folded.strip_suffix(".utf8").or_else(|| folded.strip_suffix(".utf-8")).unwrap_or(&folded);
    let tag = match name {
        "c" | "posix" => return Some(PLAIN.to_owned()),
        "english_united states.1252" => "en-US".to_owned(),
        _ => {
            let (language, region) = name.split_once(['_', '-'])?;
            let letters = |text: &str, count: std::ops::RangeInclusive<usize>| {
                count.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphabetic())
            };
            if !letters(language, 2..=3) || !letters(region, 2..=2) {
                return None;
            }
            format!("{language}-{}", region.to_ascii_uppercase())
        }
    };
    Some(match major {
        ICU_MAJOR_MIN.. => format!("LOCALE_PROVIDER icu ICU_LOCALE {} {PLAIN}", sql::literal(&tag)),
        _ if tag == "en-US" => PLAIN.to_owned(),
        _ => format!("LC_COLLATE {0} LC_CTYPE {0}", sql::literal(collation)),
    })
}

#[async_trait]
impl<G: Generation> ResourceKind for Databases<G> {
    const TYPE: &'static str = G::DATABASES;
    const API_VERSIONS: &'static [&'static str] = G::API_VERSIONS;
    const NAME_RULE: NameRule = NameRule {
        chars_min: 1,
        chars_max: 63,
        pattern: "^(?!pg_)[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,62}$",
        check: fits,
    };
    const LOCATED: bool = false;
    const ASYNCHRONOUS: bool = true;

    async fn put(
        &self,
        plan: &mut Plan<'_>,
        current: Option<&Resource>,
        desired: Desired,
    ) -> Result<Resource, Fault> {
        let asked = Asked::of(&desired.properties)?;
        let charset = asked.text("charset")?.unwrap_or(G::CHARSET);
        if !["utf8", "utf-8"].contains(&charset.to_ascii_lowercase().as_str()) {
            return Err(invalid("The charset of a database can only be UTF8 on this site."));
        }
        let collation = asked.text("collation")?.unwrap_or(G::COLLATION);
        self.postgres.clusters.place.installed()?;
        // Of which version does not matter: that says how it is written, and not whether it is known.
        if locale(collation, ICU_MAJOR_MIN).is_none() {
            return Err(invalid(format!(
                "The collation '{collation}' is not known; use one such as 'en_US.utf8'."
            )));
        }
        let server = self.server(plan.id).await?;
        server::check_complete(&server)?;
        if let Some(current) = current {
            let before: StoredDatabase = stored(current)?;
            if asked.text("collation")?.is_some() && collation != before.collation {
                return Err(Fault::conflict(
                    "DatabaseCollationCannotBeChanged",
                    "The collation of a database cannot be changed; drop it and create it again.",
                ));
            }
            return Ok(Resource::planned(
                plan,
                Some(current),
                Desired::default(),
                current.properties.clone(),
            ));
        }
        server::check_room(plan, DATABASES_MAX).await?;
        let (charset, collation) = (charset.to_owned(), collation.to_owned());
        let database = StoredDatabase { charset, collation, made: false };
        Ok(Resource::planned(plan, None, Desired::default(), to_stored(&database)?))
    }

    async fn delete(&self, _plan: &mut Plan<'_>, _current: &Resource) -> Result<(), Fault> {
        Ok(())
    }

    async fn finish(&self, resource: &Resource) -> Result<Value, Fault> {
        let mut database: StoredDatabase = stored(resource)?;
        let server = self.server(&resource.id).await?;
        let client = server::session(&self.postgres, &server).await?;
        let major = self.postgres.clusters.major(server.instance)?;
        let locale =
            locale(&database.collation, major).ok_or_else(|| invalid("The collation is not known."))?;
        match sql::create_database(&client, resource.id.name(), &locale).await {
            Err(fault) if fault.code().is_some_and(|code| UNKNOWN_COLLATION.contains(&code)) => {
                let message = format!("The server does not know the collation '{}'.", database.collation);
                return Err(invalid(message).caused_by(fault));
            }
            made => made?,
        }
        database.made = true;
        to_stored(&database)
    }

    async fn tear_down(&self, resource: &Resource) -> Result<(), Fault> {
        let database: StoredDatabase = stored(resource)?;
        if !database.made {
            // What is there under this name may be somebody's who made it in SQL.
            return Ok(());
        }
        let server = self.server(&resource.id).await?;
        let client = match server::session(&self.postgres, &server).await {
            Ok(client) => client,
            // In a server that never was there is no database either.
            Err(_) if !server.ready && !self.postgres.clusters.exists(server.instance) => return Ok(()),
            Err(fault) => return Err(fault),
        };
        Ok(sql::drop_database(&client, resource.id.name()).await?)
    }

    async fn unrecorded(&self, beside: &ArmId) -> Result<Vec<Resource>, Fault> {
        let Some(server) = beside.parent() else { return Ok(Vec::new()) };
        let Some(row) = self.postgres.store.get(RESOURCES, &server).await? else { return Ok(Vec::new()) };
        let server: StoredServer = stored(&row.value)?;
        if !server.ready {
            return Ok(Vec::new());
        }
        let client = server::session(&self.postgres, &server).await?;
        let mut found = Vec::new();
        for [name, charset, collation] in sql::databases(&client).await? {
            if Self::NAME_RULE.accepts(&name) {
                let id = beside.join(&name).map_err(Fault::internal)?;
                let database = to_stored(&StoredDatabase { charset, collation, made: true })?;
                found.push(Resource::found(id, database, row.value.modified_at));
            }
        }
        Ok(found)
    }

    fn operation_name(&self, deletes: bool) -> &'static str {
        G::DATABASE_OPERATIONS[usize::from(deletes)]
    }

    fn properties(&self, resource: &Resource, _api_version: &str) -> Value {
        match stored::<StoredDatabase>(resource) {
            Ok(database) => json!({ "charset": database.charset, "collation": database.collation }),
            Err(_) => Value::Object(Map::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collations() {
        assert!(
            locale("English_United States.1252", 15)
                .unwrap()
                .starts_with("LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")
        );
        assert!(locale("de_CH.utf8", 17).unwrap().contains("'de-CH'"));
        assert_eq!(locale("en_US.utf8", 13).unwrap(), "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'");
        assert!(!locale("C", 15).unwrap().contains("icu"));
        for bad in ["", "x", "en_US'; DROP", "en_U$", "toolong_US", "en_USA"] {
            assert_eq!(locale(bad, 15), None, "{bad}");
        }
    }

    #[test]
    fn names() {
        for good in ["arc_hack", "a", "A-b.c", "0db"] {
            assert!(fits(good), "{good}");
        }
        for bad in ["postgres", "template0", "pg_x", "-a", "a\"b", "a b", "ä"] {
            assert!(!fits(bad), "{bad}");
        }
    }
}
