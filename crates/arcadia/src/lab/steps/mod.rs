//! The walk-through, step by step, in the order of the text. The commands are the text's, as it writes them; what is
//! added to them shows what the text only tells: refusals above all.

mod database;
mod identity;
mod site;
mod storage;
mod vault;

use std::borrow::Cow;

use super::check::Check;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Workstation,
    Machine,
}

pub struct Step {
    pub title: &'static str,
    pub side: Side,
    /// What is typed.
    pub script: Cow<'static, str>,
    /// What is typed to the program that the commands start: its standard input.
    pub typed: &'static str,
    /// What is asked afterwards to judge the step, unseen.
    pub question: &'static str,
    pub check: Check,
    /// Whether it must come right after the one before: a challenge is used at once or not at all.
    pub follows: bool,
    /// Whether it needs a machine whose users are separate.
    pub needs_users: bool,
    /// Whether it changes the host's own files, which a machine shares: only its root may.
    pub needs_root: bool,
}

const fn here(title: &'static str, script: &'static str, question: &'static str, check: Check) -> Step {
    step(Side::Workstation, title, script, question, check)
}

const fn there(title: &'static str, script: &'static str, question: &'static str, check: Check) -> Step {
    step(Side::Machine, title, script, question, check)
}

const fn step(
    side: Side,
    title: &'static str,
    script: &'static str,
    question: &'static str,
    check: Check,
) -> Step {
    let script = Cow::Borrowed(script);
    Step {
        title,
        side,
        script,
        typed: "",
        question,
        check,
        follows: false,
        needs_users: false,
        needs_root: false,
    }
}

fn at_once(step: Step) -> Step {
    Step { follows: true, ..step }
}

/// All steps in order. Without terraform the values that the text reads from it are worked out once, and kept.
pub fn all(terraform: bool) -> Vec<Step> {
    let mut steps: Vec<Step> = [
        site::sign_in(terraform),
        vault::vault(),
        identity::metadata(),
        identity::token_for_arm(),
        identity::list_resources(),
        database::secret(terraform),
        storage::files(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !terraform {
        for step in &mut steps {
            let kept: Vec<&str> =
                step.script.lines().filter(|line| !line.contains("terraform output")).collect();
            step.script = Cow::Owned(kept.join("\n"));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_use_a_challenge_follow_at_once() {
        let steps = all(true);
        for (before, step) in steps.iter().zip(steps.iter().skip(1)) {
            let reads = step.script.contains("cat $challengeTokenPath")
                && !step.script.contains("challengeTokenPath=$(");
            assert!(!reads || (step.follows && step.side == before.side), "{}", step.title);
        }
        assert!(steps.len() > 30, "{}", steps.len());
    }

    #[test]
    fn without_terraform_there_are_as_many_steps() {
        let without = all(false);
        assert_eq!(all(true).len(), without.len());
        assert!(without.iter().all(|step| !step.script.is_empty() && !step.script.contains("terraform")));
    }
}
