//! Tokens from the directory: the OAuth 2.0 grants that a command line, an agent or a test needs.

use std::time::Duration;

use arcadia_crypto::Zeroizing;
use arcadia_kernel::Entropy;
use http::StatusCode;
use serde::{Deserialize, Deserializer};

use crate::answer::bounded;
use crate::{AssertionKey, Call, Client, ClientFault};

const TENANT_CHARACTERS_MAX: usize = 253;
const DEVICE_INTERVAL_SECONDS_MAX: u64 = 60;
const DEVICE_WAIT_SECONDS_MAX: u64 = 15 * 60;
/// An answer that does not say how long its token lasts is held for no longer than this.
const LIFETIME_SECONDS_UNSAID: u64 = 300;

/// What a token is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// A scope at the v2.0 endpoint, such as `https://vault.azure.net/.default`.
    Scope(&'a str),
    /// A resource at the v1 endpoint; it becomes the token's audience letter for letter.
    Resource(&'a str),
}

impl Ask<'_> {
    fn path(&self) -> &'static str {
        match self {
            Self::Scope(_) => "oauth2/v2.0/token",
            Self::Resource(_) => "oauth2/token",
        }
    }

    fn field(&self) -> (&'static str, &str) {
        match self {
            Self::Scope(scope) => ("scope", scope),
            Self::Resource(resource) => ("resource", resource),
        }
    }
}

/// A token and what was said about it. `Debug` shows neither token.
pub struct Token {
    pub access_token: Zeroizing<String>,
    pub expires_in_seconds: u64,
    /// Seconds since 1970, where the answer says it (v1).
    pub not_before: Option<i64>,
    pub refresh_token: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("expires_in_seconds", &self.expires_in_seconds).finish_non_exhaustive()
    }
}

/// v1 answers write numbers as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(i64),
    Text(String),
}

impl Number {
    fn value(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct TokenAnswer {
    access_token: String,
    expires_in: Option<Number>,
    not_before: Option<Number>,
    refresh_token: Option<String>,
}

impl From<TokenAnswer> for Token {
    fn from(answer: TokenAnswer) -> Self {
        let expires_in = answer.expires_in.and_then(|number| number.value());
        Self {
            access_token: Zeroizing::new(answer.access_token),
            expires_in_seconds: expires_in
                .and_then(|seconds| u64::try_from(seconds).ok())
                .unwrap_or(LIFETIME_SECONDS_UNSAID),
            not_before: answer.not_before.and_then(|number| number.value()),
            refresh_token: answer.refresh_token.map(Zeroizing::new),
        }
    }
}

/// A sign-in that a person completes elsewhere (RFC 8628).
#[derive(Clone, Deserialize)]
pub struct DeviceCode {
    #[serde(deserialize_with = "shown")]
    pub user_code: String,
    pub device_code: String,
    #[serde(alias = "verification_url", deserialize_with = "shown")]
    pub verification_uri: String,
    /// What to tell the person, in the directory's words.
    #[serde(default, deserialize_with = "shown")]
    pub message: String,
    #[serde(default = "five")]
    pub interval: u64,
    #[serde(default = "quarter_hour")]
    pub expires_in: u64,
}

/// What a person is shown is cleaned as a refusal is: nothing in it moves the terminal's cursor.
fn shown<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| bounded(&text))
}

fn five() -> u64 {
    5
}

fn quarter_hour() -> u64 {
    DEVICE_WAIT_SECONDS_MAX
}

/// Where a sign-in with a device code stands.
#[derive(Debug)]
pub enum DevicePoll {
    Done(Box<Token>),
    Pending,
    /// Asked too often: wait five seconds longer from now on.
    SlowDown,
}

/// The directory's endpoints for one tenant.
#[derive(Clone, Copy)]
pub struct OAuth<'a> {
    client: &'a Client,
    login: &'a str,
    tenant: &'a str,
}

impl<'a> OAuth<'a> {
    /// `login` is the directory's origin; `tenant` an id, a domain name, `organizations` or `common`.
    pub fn new(client: &'a Client, login: &'a str, tenant: &'a str) -> Result<Self, ClientFault> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if tenant.is_empty() || tenant.len() > TENANT_CHARACTERS_MAX || !tenant.chars().all(fits) {
            return Err(ClientFault::Options(
                "the tenant is not well formed; give its id or its domain name".to_owned(),
            ));
        }
        Ok(Self { client, login: login.trim_end_matches('/'), tenant })
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{}/{path}", self.login, self.tenant)
    }

    async fn grant(&self, ask: Ask<'_>, fields: &[(&str, &str)]) -> Result<Token, ClientFault> {
        let mut all = vec![ask.field()];
        all.extend_from_slice(fields);
        // A token that was issued twice is no harm.
        let call = Call::post(self.url(ask.path())).form(&all).repeatable();
        let answer: TokenAnswer = self.client.json(call).await?;
        Ok(answer.into())
    }

    /// `client_credentials` with a secret.
    pub async fn client_secret(
        &self,
        client_id: &str,
        secret: &str,
        ask: Ask<'_>,
    ) -> Result<Token, ClientFault> {
        let fields =
            [("grant_type", "client_credentials"), ("client_id", client_id), ("client_secret", secret)];
        self.grant(ask, &fields).await
    }

    /// `client_credentials` with an assertion signed by `key` for the very endpoint that is asked.
    pub async fn client_assertion(
        &self,
        client_id: &str,
        key: &AssertionKey,
        ask: Ask<'_>,
        entropy: &dyn Entropy,
        now_seconds: i64,
    ) -> Result<Token, ClientFault> {
        let assertion = key.sign(client_id, &self.url(ask.path()), entropy, now_seconds)?;
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
        ];
        self.grant(ask, &fields).await
    }

    /// A user name and password, for scripts and tests.
    pub async fn password(
        &self,
        client_id: &str,
        username: &str,
        password: &str,
        ask: Ask<'_>,
    ) -> Result<Token, ClientFault> {
        let fields = [
            ("grant_type", "password"),
            ("client_id", client_id),
            ("username", username),
            ("password", password),
        ];
        self.grant(ask, &fields).await
    }

    pub async fn refresh(
        &self,
        client_id: &str,
        refresh_token: &str,
        ask: Ask<'_>,
    ) -> Result<Token, ClientFault> {
        let fields =
            [("grant_type", "refresh_token"), ("client_id", client_id), ("refresh_token", refresh_token)];
        self.grant(ask, &fields).await
    }

    /// Starts a sign-in that a person completes at `verification_uri` with `user_code`.
    pub async fn device_start(&self, client_id: &str, scope: &str) -> Result<DeviceCode, ClientFault> {
        let fields = [("client_id", client_id), ("scope", scope)];
        let call = Call::post(self.url("oauth2/v2.0/devicecode")).form(&fields);
        self.client.json(call).await
    }

    /// Asks once whether the sign-in is complete.
    pub async fn device_poll(&self, client_id: &str, code: &DeviceCode) -> Result<DevicePoll, ClientFault> {
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("client_id", client_id),
            ("device_code", code.device_code.as_str()),
        ];
        let answer = self.client.send(Call::post(self.url("oauth2/v2.0/token")).form(&fields)).await?;
        if answer.status == StatusCode::BAD_REQUEST {
            match answer.refusal().code.as_str() {
                "authorization_pending" => return Ok(DevicePoll::Pending),
                "slow_down" => return Ok(DevicePoll::SlowDown),
                _ => {}
            }
        }
        let token: TokenAnswer = answer.accepted()?.json()?;
        Ok(DevicePoll::Done(Box::new(token.into())))
    }

    /// Asks at the directory's own pace until the sign-in is complete, refused or has taken `wait` at most.
    pub async fn device_wait(
        &self,
        client_id: &str,
        code: &DeviceCode,
        wait: Duration,
    ) -> Result<Token, ClientFault> {
        let wait = wait.min(Duration::from_secs(code.expires_in.min(DEVICE_WAIT_SECONDS_MAX)));
        let asking = async {
            let mut pause = code.interval.clamp(1, DEVICE_INTERVAL_SECONDS_MAX);
            loop {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                match self.device_poll(client_id, code).await {
                    Ok(DevicePoll::Done(token)) => return Ok(*token),
                    Ok(DevicePoll::Pending) => {}
                    Ok(DevicePoll::SlowDown) => pause = (pause + 5).min(DEVICE_INTERVAL_SECONDS_MAX),
                    // A lost connection does not undo what the person is doing; the wait as a whole is bounded.
                    Err(fault) if fault.is_passing() => tracing::debug!(%fault, "asking again"),
                    Err(fault) => return Err(fault),
                }
            }
        };
        match tokio::time::timeout(wait, asking).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ClientFault::Timeout { what: "the sign-in".to_owned(), seconds: wait.as_secs() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Token {
        serde_json::from_str::<TokenAnswer>(json).unwrap().into()
    }

    #[test]
    fn numbers_may_be_text() {
        let v1 = read(r#"{"access_token":"a","expires_in":"86399","not_before":"1","expires_on":"9"}"#);
        assert_eq!((v1.expires_in_seconds, v1.not_before), (86_399, Some(1)));
        let v2 = read(r#"{"access_token":"a","expires_in":3599,"refresh_token":"r"}"#);
        assert_eq!((v2.expires_in_seconds, v2.not_before), (3599, None));
        assert_eq!(v2.refresh_token.as_ref().map(|token| token.as_str()), Some("r"));
        assert_eq!(read(r#"{"access_token":"a"}"#).expires_in_seconds, LIFETIME_SECONDS_UNSAID);
        assert_eq!(
            read(r#"{"access_token":"a","expires_in":-5}"#).expires_in_seconds,
            LIFETIME_SECONDS_UNSAID
        );
        assert_eq!(format!("{v2:?}"), "Token { expires_in_seconds: 3599, .. }");
    }

    #[test]
    fn a_device_answer_may_leave_out_what_has_a_usual_value() {
        let json = r#"{"user_code":"ABCD1234","device_code":"d","verification_uri":"https://h/device"}"#;
        let code: DeviceCode = serde_json::from_str(json).unwrap();
        assert_eq!((code.interval, code.expires_in), (5, 900));
    }

    #[test]
    fn nothing_in_a_device_answer_moves_the_cursor() {
        let json = r#"{"user_code":"A\u001b[2K","device_code":"d","verification_url":"https://h\u0007",
            "message":"\u009b1m\r\nx"}"#;
        let code: DeviceCode = serde_json::from_str(json).unwrap();
        let shown = (code.user_code.as_str(), code.verification_uri.as_str(), code.message.as_str());
        assert_eq!(shown, ("A[2K", "https://h", "1m\nx"));
    }
}
