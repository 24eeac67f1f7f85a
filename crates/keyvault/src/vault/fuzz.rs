//! Fuzz targets for what a vault may be set to.

use std::net::IpAddr;

use serde_json::{Value, json};
use uuid::Uuid;

use super::network::Block;
use super::policy::{AccessPolicy, UpdateKind};
use super::properties::{VaultProperties, VaultRequest, checked_policies};

const TENANT: Uuid = Uuid::from_u128(0x7e);
const INSTANCE: Uuid = Uuid::from_u128(1);
const LATER_INSTANCE: Uuid = Uuid::from_u128(2);

arcadia_fuzz::target!(vault_body, |data: &[u8]| vaults_keep_what_cannot_be_undone(data));

fn over(body: &Value, current: Option<&VaultProperties>, instance: Uuid) -> Option<VaultProperties> {
    let request = VaultRequest::read(body.clone()).ok()?;
    request.create_mode().ok()?;
    request.over(current, TENANT, "2023-07-01", instance).ok()
}

/// Two bodies, a line each: the first makes a vault, the second changes it. What is made is bounded and comes back when
/// it is shown and put again; a change keeps what cannot be undone.
fn vaults_keep_what_cannot_be_undone(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n').map(serde_json::from_slice::<Value>);
    let Some(Ok(first)) = lines.next() else { return };
    let Some(made) = first.is_object().then(|| over(&first, None, INSTANCE)).flatten() else { return };
    checked(&made);
    assert!(made.instance == INSTANCE && made.tenant_id == TENANT);
    for name in ["enableRbacAuthorization", "enabledForDeployment"] {
        assert_eq!(
            json!(made)[name],
            *first.get(name).filter(|given| !given.is_null()).unwrap_or(&json!(false))
        );
    }
    let shown = made.shown("https://v.vault.azure.net/");
    assert_eq!(over(&shown, Some(&made), LATER_INSTANCE), Some(made.clone()));
    assert_eq!(over(&shown, None, INSTANCE), Some(made.clone()));
    assert_eq!(over(&json!({}), Some(&made), LATER_INSTANCE), Some(made.clone()));
    let stored: VaultProperties = serde_json::from_value(json!(made)).unwrap();
    assert_eq!(stored, made);
    let Some(Ok(second)) = lines.next() else { return };
    let Some(changed) = over(&second, Some(&made), LATER_INSTANCE) else { return };
    checked(&changed);
    assert_eq!(
        (changed.instance, changed.tenant_id, changed.soft_delete_retention_in_days),
        (made.instance, made.tenant_id, made.soft_delete_retention_in_days)
    );
    assert!(changed.is_purge_protected() || !made.is_purge_protected());
}

fn checked(vault: &VaultProperties) {
    assert!((7..=90).contains(&vault.soft_delete_retention_in_days));
    assert!(vault.enable_purge_protection != Some(false));
    assert!(vault.sku.family == "A" && ["standard", "premium"].contains(&&*vault.sku.name));
    assert!(vault.access_policies.iter().all(|policy| policy.tenant_id == TENANT));
    let Some(rules) = &vault.network_acls else { return };
    assert!(rules.ip_rules.iter().all(|rule| Block::parse(&rule.value).is_some()));
    assert!(rules.ip_rules.len() <= 1000 && rules.virtual_network_rules.len() <= 1000);
}

arcadia_fuzz::target!(network_rule, |data: &[u8]| rules_hold_as_their_bits_say(data));

/// A rule and an address, a line each: the rule holds the address if the first bits agree, one by one.
fn rules_hold_as_their_bits_say(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (rule, address) = text.split_once('\n').unwrap_or((&text, ""));
    let Some(block) = Block::parse(rule) else { return };
    let (own, length) = rule.split_once('/').map_or((rule, None), |(own, length)| (own, Some(length)));
    let own: IpAddr = own.parse().unwrap();
    assert!(block.holds(own), "{rule:?} does not hold its own address");
    // As it is shown it is read again, holds the same, and is shown the same.
    let shown = block.to_string();
    let again = Block::parse(&shown).unwrap();
    assert!(again.holds(own) && again.to_string() == shown && shown.len() <= 64, "{rule:?} {shown:?}");
    let Ok(address) = address.trim().parse::<IpAddr>() else { return };
    let bits = |address: IpAddr| -> Vec<bool> {
        let octets = match address.to_canonical() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
    };
    let (wanted, given) = (bits(own), bits(address));
    // The length of a rule for an IPv4 address that is written as an IPv6 one counts the 96 bits before it.
    let before = if own.is_ipv6() && wanted.len() == 32 { 96 } else { 0 };
    let length = length.map_or(wanted.len(), |length| length.parse::<usize>().unwrap() - before);
    let agree = wanted.len() == given.len() && wanted.iter().zip(&given).take(length).all(|(a, b)| a == b);
    assert_eq!((block.holds(address), again.holds(address)), (agree, agree), "{rule:?} {address}");
}

arcadia_fuzz::target!(access_policies, |data: &[u8]| policies_change_their_own_object_only(data));

/// `add`, `replace` or `remove`, the policies of a vault, and those of the change, a line each.
fn policies_change_their_own_object_only(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let kind = lines.next().and_then(UpdateKind::parse);
    let mut read = || -> Option<Vec<AccessPolicy>> {
        checked_policies(serde_json::from_str(lines.next()?).ok()?, TENANT).ok()
    };
    let (Some(before), Some(change)) = (read(), read()) else { return };
    assert_eq!(checked_policies(before.clone(), TENANT).unwrap(), before);
    let Some(kind) = kind else { return };
    let mut after = before.clone();
    kind.apply(&mut after, change.clone());
    let named = |policies: &[AccessPolicy], one: &AccessPolicy| -> Vec<(String, String)> {
        let of_one = policies.iter().filter(|policy| policy.is_for_same_as(one));
        let lists = of_one.map(|policy| json!(policy.permissions));
        let mut verbs: Vec<(String, String)> = lists
            .flat_map(|lists| lists.as_object().cloned().unwrap_or_default())
            .flat_map(|(object, verbs)| {
                serde_json::from_value::<Vec<String>>(verbs)
                    .unwrap()
                    .into_iter()
                    .map(move |verb| (object.clone(), verb))
            })
            .collect();
        verbs.sort();
        verbs.dedup();
        verbs
    };
    for policy in before.iter().chain(&change) {
        assert!(after.iter().filter(|other| other.is_for_same_as(policy)).count() <= 1);
        let (had, given, has) = (named(&before, policy), named(&change, policy), named(&after, policy));
        let touched = change.iter().any(|other| other.is_for_same_as(policy));
        let mut expected: Vec<(String, String)> = match kind {
            _ if !touched => had,
            UpdateKind::Add => had.into_iter().chain(given).collect(),
            UpdateKind::Replace => given,
            UpdateKind::Remove => had.into_iter().filter(|verb| !given.contains(verb)).collect(),
        };
        expected.sort();
        expected.dedup();
        assert_eq!(has, expected, "{kind:?}");
    }
    assert!(
        after.iter().all(|policy| before.iter().chain(&change).any(|other| other.is_for_same_as(policy)))
    );
}
