//! The access decision, in process: the engine that a site asks, over assignments in its index.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arcadia_arm::{Arm, ArmNames, Founding, PrincipalInfo, PrincipalSource, PrincipalType, TenantInfo};
use arcadia_crypto::SystemEntropy;
use arcadia_kernel::{
    ArmId, Authenticator, Caller, Decider, Decision, Entropy, FixedClock, Gate, Limits, Plane, Question,
    Reason, TokenFault, VerifiedToken,
};
use arcadia_store::Store;
use uuid::Uuid;

use super::Bench;
use crate::process::thread_cpu;
use crate::row::{Bound, Middle, Round, Row};

const FEW: usize = 100;
const MANY: usize = 100_000;
/// What one commit of the store takes.
const BATCH: usize = 1000;
const GROUPS: u128 = 5;
const ACTION: &str = "Microsoft.KeyVault/vaults/read";

/// Everybody exists and is in a few groups.
struct People;

impl PrincipalSource for People {
    fn principal(&self, id: Uuid) -> Option<PrincipalInfo> {
        Some(PrincipalInfo { kind: PrincipalType::User, display_name: id.to_string() })
    }

    fn groups_of(&self, _: Uuid) -> Option<HashSet<Uuid>> {
        Some((0..GROUPS).map(|group| Uuid::from_u128(0xFFFF_0000 + group)).collect())
    }

    fn tenant(&self) -> TenantInfo {
        TenantInfo { id: Uuid::nil(), display_name: String::new(), default_domain: String::new() }
    }
}

struct Nobody;

impl Authenticator for Nobody {
    fn verify(&self, _: &str, _: i64) -> Result<VerifiedToken, TokenFault> {
        Err(TokenFault::Malformed)
    }
}

/// Subscriptions, each with its own owners: as many assignments as are asked for.
struct World {
    decider: Arc<dyn Decider>,
    assignments: usize,
}

impl World {
    async fn with(assignments: usize) -> Result<Self> {
        let clock = Arc::new(FixedClock::at_epoch_seconds(1_900_000_000));
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let store = Store::in_memory(clock.clone(), entropy.clone());
        let people = Arc::new(People);
        let opened =
            Arm::open(store.clone(), ArmNames::azure(), people, Vec::new(), clock.clone(), entropy.clone());
        let arm = opened.await?;
        let decider = arm.decider();
        let gate = Arc::new(Gate {
            authenticator: Arc::new(Nobody),
            decider: decider.clone(),
            audit: store.audit_sink(),
            clock,
            entropy,
            limits: Limits::default(),
        });
        for first in (0..assignments).step_by(BATCH) {
            let owners = first..assignments.min(first + BATCH);
            let founding = Founding {
                tenant_id: Uuid::nil(),
                subscription_id: subscription(first),
                display_name: "bench".to_owned(),
                owners: owners.map(|number| (principal(number), PrincipalType::User)).collect(),
            };
            let founded = arm.found(gate.as_system(Reason::Founding), founding).await;
            founded.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
        }
        Ok(Self { decider, assignments })
    }

    /// The processor time of one decision; half of those asked are allowed.
    fn decision_micros(&self, count: usize) -> Result<f64> {
        let asked: Vec<(Caller, ArmId)> = (0..FEW)
            .map(|number| {
                let owner = number * self.assignments / FEW;
                // Every other one asks where it has no role.
                let of = if number % 2 == 0 { owner / BATCH * BATCH } else { self.assignments + BATCH };
                let scope = format!(
                    "/subscriptions/{}/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/v/secrets/s",
                    subscription(of)
                );
                let caller = Caller { object_id: principal(owner), ..Caller::anonymous() };
                Ok((caller, ArmId::parse(&scope).ok().context("a scope")?))
            })
            .collect::<Result<_>>()?;
        let mut allowed = 0;
        let before = thread_cpu()?;
        for number in 0..count {
            let (caller, scope) = &asked[number % FEW];
            let question = Question { caller, action: ACTION, plane: Plane::Control, scope };
            allowed += usize::from(matches!(self.decider.decide(&question), Decision::Allowed { .. }));
        }
        let spent = thread_cpu()?.saturating_sub(before);
        if allowed * 2 != count {
            bail!("{allowed} of {count} decisions allowed, and not half of them");
        }
        Ok(spent.as_secs_f64() * 1e6 / count as f64)
    }
}

fn principal(number: usize) -> Uuid {
    Uuid::from_u128(0x1000_0000 + number as u128)
}

fn subscription(first: usize) -> Uuid {
    Uuid::from_u128(0x5000_0000 + first as u128)
}

pub async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let few = World::with(FEW).await?;
    let many = World::with(bench.size(MANY, 1000)).await?;
    let count = bench.size(200_000, 1000);
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        rounds.push(Round::pair(many.decision_micros(count)?, few.decision_micros(count)?));
    }
    let alone = rounds.iter().map(|round| Round::alone(round.ours)).collect();
    let flat = Middle::of(rounds.iter().filter_map(|round| round.beside)).context("at least one round")?;
    Ok(vec![
        Row::new("access decision", "100,000 role assignments, caller in 5 groups: CPU", "us")
            .gate(Bound::AtMost(3.0))
            .stretch(Bound::AtMost(1.0))
            .rounds(alone)
            .note(format!("{:.2} us with 100 assignments", flat.median)),
        Row::new("access decision, growth", "100,000 assignments beside 100: CPU", "us")
            .ratio_to("100 assignments")
            .gate(Bound::AtMost(1.5))
            .rounds(rounds),
    ])
}
