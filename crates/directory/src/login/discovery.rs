//! Documents that clients read before anything else: OpenID Connect discovery, keys, instances, user realms.

use arcadia_kernel::{At, Fault, HeaderValue, Open, Permit, Reply, Request, header};
use serde_json::{Value, json};

use crate::login::Login;
use crate::login::faults::{missing_parameter, refusal};
use crate::login::tenant::TenantPath;

/// How long a client may keep one of these documents.
const DOCUMENT_CACHE: &str = "max-age=86400, private";

fn document(value: &Value) -> Result<Reply, Fault> {
    Ok(Reply::ok(value)?
        .with(header::CACHE_CONTROL, HeaderValue::from_static(DOCUMENT_CACHE))
        .with(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")))
}

pub(super) async fn openid_v2(at: At<Login>, _: Permit<Open>, request: Request) -> Result<Reply, Fault> {
    let path = TenantPath::resolve(&at.directory, request.param("tenant"), "invalid_tenant")?;
    let names = at.directory.names();
    let base = format!("https://{}/{}", names.login_host, path.text);
    document(&json!({
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code"],
        "grant_types_supported": GRANT_TYPES,
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": format!("https://{}/{}/v2.0", names.login_host, path.issuer_part()),
        "request_uri_parameter_supported": false,
        "userinfo_endpoint": format!("https://{}/oidc/userinfo", names.graph_host),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
        "http_logout_supported": true,
        "end_session_endpoint": format!("{base}/oauth2/v2.0/logout"),
        "claims_supported": CLAIMS,
        "tenant_region_scope": null,
        "cloud_instance_name": cloud_instance(&names.login_host),
        "msgraph_host": names.graph_host,
    }))
}

pub(super) async fn openid_v1(at: At<Login>, _: Permit<Open>, request: Request) -> Result<Reply, Fault> {
    let path = TenantPath::resolve(&at.directory, request.param("tenant"), "invalid_tenant")?;
    let names = at.directory.names();
    let base = format!("https://{}/{}", names.login_host, path.text);
    document(&json!({
        "token_endpoint": format!("{base}/oauth2/token"),
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "jwks_uri": format!("{base}/discovery/keys"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code"],
        "grant_types_supported": GRANT_TYPES,
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["openid"],
        "issuer": format!("https://{}/{}/", names.sts_host, path.issuer_part()),
        "microsoft_multi_refresh_token": true,
        "authorization_endpoint": format!("{base}/oauth2/authorize"),
        "device_authorization_endpoint": format!("{base}/oauth2/devicecode"),
        "http_logout_supported": true,
        "end_session_endpoint": format!("{base}/oauth2/logout"),
        "claims_supported": CLAIMS,
        "tenant_region_scope": null,
        "cloud_instance_name": cloud_instance(&names.login_host),
        "msgraph_host": names.graph_host,
    }))
}

const GRANT_TYPES: [&str; 5] = [
    "authorization_code",
    "client_credentials",
    "password",
    "refresh_token",
    "urn:ietf:params:oauth:grant-type:device_code",
];

const CLAIMS: [&str; 13] = [
    "sub",
    "iss",
    "aud",
    "exp",
    "iat",
    "auth_time",
    "amr",
    "nonce",
    "preferred_username",
    "name",
    "oid",
    "tid",
    "ver",
];

/// `microsoftonline.com` of `login.microsoftonline.com`.
fn cloud_instance(login_host: &str) -> &str {
    login_host.split_once('.').map_or(login_host, |(_, rest)| rest)
}

pub(super) async fn keys_v2(at: At<Login>, _: Permit<Open>, request: Request) -> Result<Reply, Fault> {
    TenantPath::resolve(&at.directory, request.param("tenant"), "invalid_tenant")?;
    document(&at.directory.jwks_with_issuer())
}

pub(super) async fn keys_v1(at: At<Login>, _: Permit<Open>, request: Request) -> Result<Reply, Fault> {
    TenantPath::resolve(&at.directory, request.param("tenant"), "invalid_tenant")?;
    document(&at.directory.jwks())
}

/// Tells a client whether an authority it was given is one it may trust: only this site's own are.
pub(super) async fn instance(at: At<Login>, _: Permit<Open>, request: Request) -> Result<Reply, Fault> {
    let endpoint = request.query.first("authorization_endpoint");
    let endpoint = endpoint.ok_or_else(|| missing_parameter("authorization_endpoint"))?;
    let names = at.directory.names();
    let unknown = || {
        refusal(
            400,
            "invalid_instance",
            50_049,
            "Unknown or invalid instance: the authority is not one of \
                   this site's.",
        )
    };
    let uri: http::Uri = endpoint.parse().map_err(|_| unknown())?;
    let host = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let host = host.strip_suffix(":443").unwrap_or(host);
    if uri.scheme_str() != Some("https") || !names.is_login_host(host) {
        return Err(unknown());
    }
    let tenant = uri.path().split('/').find(|segment| !segment.is_empty()).ok_or_else(unknown)?;
    let api_version =
        request.query.first("api-version").filter(|version| version.len() <= 8).unwrap_or("1.1");
    let aliases: Vec<&str> = names.login_hosts().collect();
    let cache = names.login_aliases.first().unwrap_or(&names.login_host);
    document(&json!({
        "tenant_discovery_endpoint": format!("https://{host}/{tenant}/v2.0/.well-known/openid-configuration"),
        "api-version": api_version,
        "metadata": [{
            "preferred_network": names.login_host,
            "preferred_cache": cache,
            "aliases": aliases,
        }],
    }))
}

/// How accounts of a domain sign in. Every account of the tenant's domain is managed here; it does not say
/// whether the account exists.
pub(super) async fn user_realm(at: At<Login>, _: Permit<Open>, request: Request) -> Result<Reply, Fault> {
    let tenant = at.directory.founded_tenant()?;
    let user = request.param("user");
    let domain = user.rsplit_once('@').map_or("", |(_, domain)| domain);
    if !domain.eq_ignore_ascii_case(&tenant.domain) {
        return Reply::ok(&json!({ "ver": "1.0", "account_type": "Unknown", "login": user }));
    }
    Reply::ok(&json!({
        "ver": "1.0",
        "account_type": "Managed",
        "domain_name": tenant.domain,
        "cloud_instance_name": cloud_instance(&at.directory.names().login_host),
        "cloud_audience_urn": "urn:federation:MicrosoftOnline",
    }))
}
