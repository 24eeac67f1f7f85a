//! `azcmagent disconnect`.

use arcadia_client::{Client, ClientFault};

use super::arm::{Arm, Place};
use super::sign_in::sign_in;
use super::{Event, Failure, Listener, OnboardFault, SignIn};
use crate::files::remove_in;
use crate::layout::{CONFIG, HEARTBEAT, Part};
use crate::link::client_options;
use crate::{AgentConfig, AgentFault, AgentOptions, MachineIdentity};

pub struct DisconnectRequest {
    /// `None`: only what is on the machine is removed (`--force-local-only`).
    pub sign_in: Option<SignIn>,
    /// The connection's own when missing.
    pub tenant: Option<String>,
}

/// What was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnected {
    /// There was nothing to undo.
    WasNotConnected,
    /// The resource had been deleted already; what was on the machine is removed.
    ResourceWasGone,
    LocalOnly,
    Whole,
}

/// Deletes the machine's resource, and with it its identity, then what is on the machine. When the site refuses,
/// everything stays as it is.
pub async fn disconnect(
    options: &AgentOptions,
    request: DisconnectRequest,
    listener: &mut Listener<'_>,
) -> Result<Disconnected, OnboardFault> {
    let layout = options.layout();
    let Some(sign_in_as) = request.sign_in else {
        return forget(options).map(|was_connected| {
            if was_connected { Disconnected::LocalOnly } else { Disconnected::WasNotConnected }
        });
    };
    let Some(config) = AgentConfig::read(&layout.config())? else {
        return Ok(Disconnected::WasNotConnected);
    };
    check_writable(&layout)?;
    let client = Client::new(client_options(options, Some(&config))?)
        .map_err(|fault| OnboardFault::new(Failure::BadArguments, fault.to_string()))?;
    listener(Event::Info("Disconnecting machine from Azure...".to_owned()));
    let tenant = request.tenant.unwrap_or_else(|| config.tenant_id.to_string());
    let endpoints = options.reach.endpoints.as_ref().unwrap_or(&config.endpoints);
    let bearer = sign_in(options, &client, endpoints, Some(&tenant), &sign_in_as, listener).await?;
    let arm = Arm { client: &client, endpoints, token: &bearer.token };
    let place = Place {
        subscription_id: config.subscription_id,
        resource_group: &config.resource_group,
        name: &config.resource_name,
    };
    let was_there = delete(&arm, &place, &config).await?;
    forget(options)?;
    Ok(if was_there { Disconnected::Whole } else { Disconnected::ResourceWasGone })
}

/// A machine that someone else connected under this name since is left alone.
async fn delete(arm: &Arm<'_>, place: &Place<'_>, config: &AgentConfig) -> Result<bool, OnboardFault> {
    let refused = |fault: ClientFault| {
        OnboardFault::site(Failure::DeleteFailed, "cannot delete the machine's resource", &fault)
    };
    let found = match arm.machine(place).await {
        // Who may delete machines need not be allowed to look at them.
        Err(fault) if fault.refusal().is_some_and(|refusal| refusal.status == 403) => None,
        other => match other.map_err(refused)? {
            Some(machine) => Some(machine),
            None => return Ok(false),
        },
    };
    let vm_id = found.as_ref().and_then(|machine| machine["properties"]["vmId"].as_str());
    if vm_id.is_some_and(|vm_id| vm_id.parse() != Ok(config.vm_id)) {
        return Ok(false);
    }
    arm.delete_machine(place).await.map_err(refused)
}

/// Asked before the resource is deleted, so that it is not done by half.
fn check_writable(layout: &crate::Layout) -> Result<(), OnboardFault> {
    let denied = rustix::fs::access(layout.root(), rustix::fs::Access::WRITE_OK).is_err();
    if denied {
        let message = format!("cannot write to {}; run the command as root", layout.root().display());
        return Err(OnboardFault::new(Failure::NotRoot, message));
    }
    Ok(())
}

/// Removes configuration, key and what was heard. A running daemon notices by itself.
fn forget(options: &AgentOptions) -> Result<bool, OnboardFault> {
    let layout = options.layout();
    let was_connected = layout.config().exists();
    if was_connected {
        let removed = layout.open_root().and_then(|root| remove_in(&root, CONFIG));
        removed.map_err(|fault| AgentFault::file("cannot remove", &layout.config(), fault))?;
    }
    layout
        .remove(Part::State, HEARTBEAT)
        .map_err(|fault| AgentFault::file("cannot empty", &layout.part(Part::State), fault))?;
    MachineIdentity::remove(&layout)?;
    Ok(was_connected)
}
