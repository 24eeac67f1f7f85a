//! The directory in memory: everything a decision, a token or a Graph list reads, as of the last commit.

#[cfg(test)]
mod oracle;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use arcadia_crypto::{JwtSigner, RsaKeyPair, b64_decode};
use arcadia_store::{Change, Key, Record, Store, StoreError, Table};
use uuid::Uuid;

use crate::model::{
    self, Application, DeletedApplication, FormKey, Group, Link, OwnerLink, RoleMember, ServicePrincipal,
    SigningKey, Tenant, User, fold,
};

/// Who or what an identifier names.
#[derive(Clone, Debug)]
pub(crate) enum DirectoryObject {
    User(Arc<User>),
    Group(Arc<Group>),
    Application(Arc<Application>),
    ServicePrincipal(Arc<ServicePrincipal>),
}

pub(crate) struct ActiveSigner {
    pub created_seconds: i64,
    pub signer: Arc<JwtSigner>,
}

#[derive(Default)]
pub(crate) struct Snapshot {
    pub tenant: Option<Arc<Tenant>>,
    pub users: BTreeMap<Uuid, Arc<User>>,
    user_names: HashMap<String, Uuid>,
    pub groups: BTreeMap<Uuid, Arc<Group>>,
    members: HashMap<Uuid, BTreeSet<Uuid>>,
    /// Member to the groups it is directly in.
    parents: HashMap<Uuid, BTreeSet<Uuid>>,
    owners: HashMap<Uuid, BTreeSet<Uuid>>,
    pub applications: BTreeMap<Uuid, Arc<Application>>,
    application_app_ids: HashMap<Uuid, Uuid>,
    identifier_uris: HashMap<String, Uuid>,
    pub deleted: BTreeMap<Uuid, Arc<DeletedApplication>>,
    pub principals: BTreeMap<Uuid, Arc<ServicePrincipal>>,
    principal_app_ids: HashMap<Uuid, Uuid>,
    /// Principal to the directory roles it holds itself.
    roles: HashMap<Uuid, BTreeSet<Uuid>>,
    form_key: Option<Arc<[u8]>>,
    /// Newest first.
    signers: Vec<ActiveSigner>,
}

impl Snapshot {
    pub(crate) fn user_named(&self, upn: &str) -> Option<&Arc<User>> {
        self.users.get(self.user_names.get(&fold(upn))?)
    }

    pub(crate) fn application_of(&self, app_id: Uuid) -> Option<&Arc<Application>> {
        self.applications.get(self.application_app_ids.get(&app_id)?)
    }

    pub(crate) fn application_with_uri(&self, uri: &str) -> Option<&Arc<Application>> {
        self.applications.get(self.identifier_uris.get(&fold(uri))?)
    }

    pub(crate) fn principal_of(&self, app_id: Uuid) -> Option<&Arc<ServicePrincipal>> {
        self.principals.get(self.principal_app_ids.get(&app_id)?)
    }

    pub(crate) fn members_of(&self, group: Uuid) -> impl Iterator<Item = Uuid> {
        self.members.get(&group).into_iter().flatten().copied()
    }

    pub(crate) fn direct_groups_of(&self, member: Uuid) -> impl Iterator<Item = Uuid> {
        self.parents.get(&member).into_iter().flatten().copied()
    }

    pub(crate) fn owners_of(&self, object: Uuid) -> impl Iterator<Item = Uuid> {
        self.owners.get(&object).into_iter().flatten().copied()
    }

    /// What `owner` owns.
    pub(crate) fn owned_by(&self, owner: Uuid) -> impl Iterator<Item = Uuid> {
        self.owners.iter().filter(move |(_, owners)| owners.contains(&owner)).map(|(object, _)| *object)
    }

    pub(crate) fn roles_of(&self, principal: Uuid) -> impl Iterator<Item = Uuid> {
        self.roles.get(&principal).into_iter().flatten().copied()
    }

    pub(crate) fn role_members(&self) -> impl Iterator<Item = RoleMember> {
        let each = |(principal, roles): (&Uuid, &BTreeSet<Uuid>)| {
            let principal = *principal;
            roles.iter().map(move |role| RoleMember { role: *role, principal }).collect::<Vec<_>>()
        };
        self.roles.iter().flat_map(each)
    }

    /// Groups that hold `member` directly or through other groups. Groups may contain one another in circles.
    pub(crate) fn transitive_groups_of(&self, member: Uuid) -> HashSet<Uuid> {
        let mut found = HashSet::new();
        let mut waiting: VecDeque<Uuid> = self.direct_groups_of(member).collect();
        while let Some(group) = waiting.pop_front() {
            if found.insert(group) {
                waiting.extend(self.direct_groups_of(group));
            }
        }
        found
    }

    pub(crate) fn object(&self, id: Uuid) -> Option<DirectoryObject> {
        let user = || self.users.get(&id).cloned().map(DirectoryObject::User);
        let group = || self.groups.get(&id).cloned().map(DirectoryObject::Group);
        let principal = || self.principals.get(&id).cloned().map(DirectoryObject::ServicePrincipal);
        let application = || self.applications.get(&id).cloned().map(DirectoryObject::Application);
        user().or_else(group).or_else(principal).or_else(application)
    }

    /// Whether a sign-in of this principal may still count for anything.
    pub(crate) fn is_enabled_principal(&self, id: Uuid) -> bool {
        self.users.get(&id).is_some_and(|user| user.enabled)
            || self.principals.get(&id).is_some_and(|principal| principal.enabled)
    }

    /// Whether people's tokens of this application may still count for anything. Clients that come with every tenant,
    /// as the command line does, have a service principal too.
    pub(crate) fn is_enabled_client(&self, app_id: Uuid) -> bool {
        self.principal_of(app_id).is_some_and(|principal| principal.enabled)
    }

    pub(crate) fn signers(&self) -> &[ActiveSigner] {
        &self.signers
    }

    pub(crate) fn form_key(&self) -> Option<Arc<[u8]>> {
        self.form_key.clone()
    }

    fn load_signer(key: &SigningKey) -> Option<JwtSigner> {
        let pkcs8 = arcadia_crypto::Zeroizing::new(b64_decode(&key.pkcs8)?);
        let pair = RsaKeyPair::from_pkcs8_der(&pkcs8).ok()?;
        JwtSigner::new(pair, b64_decode(&key.certificate)?).ok()
    }
}

/// A record that the snapshot follows.
trait Mirrored: Record + Clone {
    /// Replaces `before` by `after` in the snapshot. Applying a change twice is the same as once.
    fn apply(snapshot: &mut Snapshot, before: Option<&Self>, after: Option<&Self>);
}

fn link(map: &mut HashMap<Uuid, BTreeSet<Uuid>>, from: Uuid, to: Uuid) {
    map.entry(from).or_default().insert(to);
}

fn unlink(map: &mut HashMap<Uuid, BTreeSet<Uuid>>, from: Uuid, to: Uuid) {
    if let Some(set) = map.get_mut(&from) {
        set.remove(&to);
        if set.is_empty() {
            map.remove(&from);
        }
    }
}

impl Mirrored for Tenant {
    fn apply(snapshot: &mut Snapshot, _: Option<&Self>, after: Option<&Self>) {
        snapshot.tenant = after.cloned().map(Arc::new);
    }
}

impl Mirrored for SigningKey {
    fn apply(snapshot: &mut Snapshot, before: Option<&Self>, after: Option<&Self>) {
        for key in before.into_iter().chain(after) {
            snapshot.signers.retain(|active| active.signer.kid() != key.kid);
        }
        if let Some(key) = after {
            match Snapshot::load_signer(key) {
                Some(signer) => snapshot
                    .signers
                    .push(ActiveSigner { created_seconds: key.created_seconds, signer: Arc::new(signer) }),
                None => tracing::error!(kid = key.kid, "a stored token-signing key is not readable"),
            }
        }
        snapshot.signers.sort_by_key(|active| std::cmp::Reverse(active.created_seconds));
    }
}

impl Mirrored for FormKey {
    fn apply(snapshot: &mut Snapshot, _: Option<&Self>, after: Option<&Self>) {
        snapshot.form_key = after.and_then(|row| b64_decode(&row.key)).map(Arc::from);
    }
}

impl Mirrored for User {
    fn apply(snapshot: &mut Snapshot, before: Option<&Self>, after: Option<&Self>) {
        if let Some(user) = before {
            snapshot.users.remove(&user.id);
            snapshot.user_names.remove(&fold(&user.upn));
        }
        if let Some(user) = after {
            snapshot.user_names.insert(fold(&user.upn), user.id);
            snapshot.users.insert(user.id, Arc::new(user.clone()));
        }
    }
}

impl Mirrored for Group {
    fn apply(snapshot: &mut Snapshot, before: Option<&Self>, after: Option<&Self>) {
        if let Some(group) = before {
            snapshot.groups.remove(&group.id);
        }
        if let Some(group) = after {
            snapshot.groups.insert(group.id, Arc::new(group.clone()));
        }
    }
}

impl Mirrored for Link {
    fn apply(snapshot: &mut Snapshot, before: Option<&Self>, after: Option<&Self>) {
        if let Some(Link { group, member }) = before {
            unlink(&mut snapshot.members, *group, *member);
            unlink(&mut snapshot.parents, *member, *group);
        }
        if let Some(Link { group, member }) = after {
            link(&mut snapshot.members, *group, *member);
            link(&mut snapshot.parents, *member, *group);
        }
    }
}

impl Mirrored for OwnerLink {
    fn apply(snapshot: &mut Snapshot, before: Option<&Self>, after: Option<&Self>) {
        if let Some(OwnerLink { object, owner }) = before {
            unlink(&mut snapshot.owners, *object, *owner);
        }
        if let Some(OwnerLink { object, owner }) = after {
            link(&mut snapshot.owners, *object, *owner);
        }
    }
}

impl Mirrored for Application {
    fn apply(snapshot: &mut Snapshot, before: Option<&Self>, after: Option<&Self>) {
        if let Some(application) = before {
            snapshot.applications.remove(&application.id);
            snapshot.application_app_ids.remove(&application.app_id);
            for uri in &application.identifier_uris {
                snapshot.identifier_uris.remove(&fold(uri));
            }
        }
        if let Some(application) = after {
            snapshot.application_app_ids.insert(application.app_id, application.id);
            for uri in &application.identifier_uris {
                snapshot.identifier_uris.insert(fold(uri), application.id);
            }
            snapshot.applications.insert(application.id, Arc::new(application.clone()));
        }
    }
}

impl Mirrored for DeletedApplication {
    fn apply(snapshot: &mut Snapshot, before: Option<&Self>, after: Option<&Self>) {
        if let Some(deleted) = before {
            snapshot.deleted.remove(&deleted.application.id);
        }
        if let Some(deleted) = after {
            snapshot.deleted.insert(deleted.application.id, Arc::new(deleted.clone()));
        }
    }
}

impl Mirrored for ServicePrincipal {
    fn apply(snapshot: &mut Snapshot, before: Option<&Self>, after: Option<&Self>) {
        if let Some(principal) = before {
            snapshot.principals.remove(&principal.id);
            snapshot.principal_app_ids.remove(&principal.app_id);
        }
        if let Some(principal) = after {
            snapshot.principal_app_ids.insert(principal.app_id, principal.id);
            snapshot.principals.insert(principal.id, Arc::new(principal.clone()));
        }
    }
}

impl Mirrored for RoleMember {
    fn apply(snapshot: &mut Snapshot, before: Option<&Self>, after: Option<&Self>) {
        if let Some(RoleMember { role, principal }) = before {
            unlink(&mut snapshot.roles, *principal, *role);
        }
        if let Some(RoleMember { role, principal }) = after {
            link(&mut snapshot.roles, *principal, *role);
        }
    }
}

/// The snapshot behind its lock. Readers hold it for moments and never across an await.
#[derive(Clone, Default)]
pub(crate) struct LiveSnapshot(Arc<RwLock<Snapshot>>);

impl LiveSnapshot {
    /// Loads every followed table and follows its changes from now on.
    pub(crate) async fn load(store: &Store) -> Result<Self, StoreError> {
        let live = Self::default();
        live.follow(store, model::TENANT).await?;
        live.follow(store, model::SIGNING_KEYS).await?;
        live.follow(store, model::FORM_KEYS).await?;
        live.follow(store, model::USERS).await?;
        live.follow(store, model::GROUPS).await?;
        live.follow(store, model::MEMBERS).await?;
        live.follow(store, model::OWNERS).await?;
        live.follow(store, model::APPLICATIONS).await?;
        live.follow(store, model::DELETED_APPLICATIONS).await?;
        live.follow(store, model::PRINCIPALS).await?;
        live.follow(store, model::ROLES).await?;
        Ok(live)
    }

    async fn follow<K, V>(&self, store: &Store, table: Table<K, V>) -> Result<(), StoreError>
    where
        K: Key + ?Sized + 'static,
        V: Mirrored,
    {
        let followed = self.clone();
        store.observe(table, move |changes: &[Change<V>]| {
            let mut snapshot = followed.0.write().unwrap_or_else(PoisonError::into_inner);
            for change in changes {
                V::apply(&mut snapshot, change.before.as_ref(), change.after.as_ref());
            }
        });
        let rows = store.all(table, &()).await?;
        let mut snapshot = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            V::apply(&mut snapshot, None, Some(&row.value));
        }
        Ok(())
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Snapshot> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
