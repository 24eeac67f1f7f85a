//! The first start: a tenant, a subscription, a first user and a first service principal.

use anyhow::{Context as _, bail};
use arcadia_arm::PrincipalType;
use arcadia_crypto::Zeroizing;
use arcadia_directory::{Founding, new_password};
use arcadia_kernel::{Clock, Entropy, EntropyExt as _, Fault, Reason};

use super::Assembly;
use crate::site::{Credentials, DataDir, SiteRecord};
use crate::terminal::note;

const SUBSCRIPTION_NAME: &str = "Arcadia";
/// 36 letters and digits hold more than 200 bits.
const SECRET_CHARACTERS: usize = 36;

/// What the first user is called.
pub struct FirstNames {
    pub user_name: String,
    pub user_domain: String,
}

/// Founds a new site, or takes up a founding that was interrupted; does nothing to one that is complete. Returns
/// the first user's name.
///
/// The credentials are on disk before the directory learns them, and the site's record is written last: so
/// whatever a crash leaves behind is either taken up with the same credentials or complete.
pub async fn found(
    data: &DataDir,
    first: &FirstNames,
    assembly: &Assembly,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> anyhow::Result<String> {
    if SiteRecord::load(data)?.is_some() {
        let known = Credentials::load(data)?.map(|credentials| credentials.user);
        return Ok(known.unwrap_or_else(|| "(credentials.json is gone)".to_owned()));
    }
    note("making a new site ...");
    let credentials = match Credentials::load(data)? {
        Some(credentials) => credentials,
        None => {
            let made = make(first, entropy);
            made.save(data)?;
            made
        }
    };
    found_directory(assembly, &credentials).await?;
    found_subscription(assembly, &credentials).await?;
    let domain = credentials.user.rsplit_once('@').map_or("", |(_, domain)| domain).to_owned();
    let named = assembly.names.domain().map(str::to_owned);
    SiteRecord::new(credentials.tenant_id, credentials.subscription_id, domain, named, clock.now())
        .save(data)?;
    Ok(credentials.user)
}

fn make(first: &FirstNames, entropy: &dyn Entropy) -> Credentials {
    Credentials {
        tenant_id: entropy.uuid(),
        subscription_id: entropy.uuid(),
        client_id: entropy.uuid(),
        client_secret: client_secret(entropy),
        user: format!("{}@{}", first.user_name, first.user_domain.to_lowercase()),
        password: new_password(entropy),
    }
}

/// Letters and digits only, so that no shell or option parser takes it for something else.
fn client_secret(entropy: &dyn Entropy) -> Zeroizing<String> {
    let mut secret = Zeroizing::new(String::with_capacity(SECRET_CHARACTERS));
    while secret.len() < SECRET_CHARACTERS {
        let more = Zeroizing::new(entropy.token(SECRET_CHARACTERS));
        let missing = SECRET_CHARACTERS - secret.len();
        secret.extend(more.chars().filter(char::is_ascii_alphanumeric).take(missing));
    }
    secret
}

async fn found_directory(assembly: &Assembly, credentials: &Credentials) -> anyhow::Result<()> {
    let (user_name, domain) = credentials.user.rsplit_once('@').context("the first user's name has no @")?;
    let founding = Founding {
        tenant_id: Some(credentials.tenant_id),
        app_id: Some(credentials.client_id),
        domain: domain.to_owned(),
        user_name: user_name.to_owned(),
        user_password: Some(credentials.password.clone()),
        client_secret: Some(credentials.client_secret.clone()),
        ..Founding::default()
    };
    let permit = assembly.gate.as_system(Reason::Founding);
    assembly.directory.found(permit, founding).await.map_err(told)?;
    let tenant = assembly.directory.tenant().context("the directory is not founded")?;
    if tenant.id != credentials.tenant_id {
        bail!(
            "credentials.json is of tenant {}, and the directory's is {}; put back the site.json and \
             credentials.json that belong to this data directory",
            credentials.tenant_id,
            tenant.id
        );
    }
    Ok(())
}

async fn found_subscription(assembly: &Assembly, credentials: &Credentials) -> anyhow::Result<()> {
    let directory = &assembly.directory;
    let user = directory.user_named(&credentials.user).context("the first user does not exist")?;
    let application = directory
        .service_principal_of(credentials.client_id)
        .context("the first service principal does not exist")?;
    let founding = arcadia_arm::Founding {
        tenant_id: credentials.tenant_id,
        subscription_id: credentials.subscription_id,
        display_name: SUBSCRIPTION_NAME.to_owned(),
        owners: vec![
            (user.object_id, PrincipalType::User),
            (application.object_id, PrincipalType::ServicePrincipal),
        ],
    };
    let permit = assembly.gate.as_system(Reason::Founding);
    assembly.arm.found(permit, founding).await.map_err(told)
}

fn told(fault: Fault) -> anyhow::Error {
    match fault.source() {
        Some(source) => anyhow::anyhow!("{}: {source}", fault.message),
        None => anyhow::anyhow!("{}", fault.message),
    }
}
