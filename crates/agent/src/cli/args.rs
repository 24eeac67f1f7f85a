//! Flags, as `azcmagent` has them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use arcadia_client::Endpoints;
use arcadia_crypto::Zeroizing;
use arcadia_kernel::is_site_domain;
use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

use super::surroundings::Surroundings;
use crate::onboard::{ConnectRequest, DisconnectRequest, Failure, OnboardFault, SignIn};
use crate::{AgentOptions, DEFAULT_ROOT};

const TAGS_MAX: usize = 50;
const TAG_NAME_CHARACTERS_MAX: usize = 512;
const TAG_VALUE_CHARACTERS_MAX: usize = 256;
const AZURE_CLOUD: &str = "AzureCloud";
/// What a site under a domain of its own is called, as its metadata says.
const OWN_CLOUD: &str = "Arcadia";

/// Connects this machine to an Arcadia site as an Azure Arc-enabled server, and shows how it is connected.
#[derive(Parser)]
#[command(name = "azcmagent", disable_help_subcommand = true, args_override_self = true)]
#[command(after_help = "Examples:
  azcmagent connect -s SUBSCRIPTION -g arc-hack -l uksouth \\
    -t TENANT -i APP_ID -p SECRET
  azcmagent connect -s SUBSCRIPTION -g arc-hack -l uksouth --use-device-code
  azcmagent connect --domain example.net -s SUBSCRIPTION \\
    -g arc-hack -l uksouth --use-device-code
  azcmagent show 'Agent Status'
  azcmagent disconnect --force-local-only")]
pub(super) struct Azcmagent {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Args)]
pub(super) struct Common {
    /// JSON or YAML file of flags and values; flags that are given win
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Results as JSON; messages go to standard error
    #[arg(short, long, global = true)]
    pub(super) json: bool,
    /// Messages go to standard error
    #[arg(long, global = true)]
    pub(super) log_stderr: bool,
    /// Without colours; there are none
    #[arg(long, global = true)]
    no_color: bool,
    /// Accepted for scripts that give it
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(flatten)]
    place: Place,
}

/// Where the agent's files and its service are; other than usual only on a test bench.
#[derive(Args)]
struct Place {
    /// Folder of the agent's files
    #[arg(long, global = true, value_name = "FOLDER", default_value = DEFAULT_ROOT, hide = true)]
    root: PathBuf,
    /// Address of the agent's service; may be given twice
    #[arg(long, global = true, value_name = "ADDRESS", hide = true)]
    address: Vec<SocketAddr>,
}

impl Place {
    fn options(&self, surroundings: &Surroundings) -> Result<AgentOptions, OnboardFault> {
        surroundings.options(&self.root, &self.address)
    }
}

impl Common {
    pub(super) fn options(&self, surroundings: &Surroundings) -> Result<AgentOptions, OnboardFault> {
        self.place.options(surroundings)
    }
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Connect this machine
    Connect(Box<Connect>),
    /// Delete this machine's resource and identity, and forget them here
    Disconnect(Disconnect),
    /// Show how this machine is connected
    Show(Show),
    /// Show the agent's version
    Version,
    /// Show the commands, or what one of them takes
    Help { command: Option<String> },
    #[command(flatten)]
    Absent(Absent),
}

/// Commands of Azure's agent that have nothing to do here.
#[derive(Subcommand)]
#[command(hide = true)]
pub(super) enum Absent {
    #[command(hide = true)]
    Check(Anything),
    #[command(hide = true)]
    Config(Anything),
    #[command(hide = true)]
    Extension(Anything),
    #[command(hide = true)]
    Genkey(Anything),
    #[command(hide = true)]
    License(Anything),
    #[command(hide = true)]
    Logs(Anything),
    #[command(hide = true)]
    Upgrade(Anything),
}

/// Whatever Azure's command takes.
#[derive(Args)]
pub(super) struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _words: Vec<OsString>,
}

impl Absent {
    /// What to do instead, or why there is nothing to do.
    pub(super) fn why(&self) -> &'static str {
        match self {
            Self::Check(_) => {
                "'check' is a command of Azure's agent; 'azcmagent show' tells whether this machine reaches its site"
            }
            Self::Config(_) => {
                "'config' is a command of Azure's agent; this one has no settings, and takes its proxy from HTTPS_PROXY \
                 when it is connected"
            }
            Self::Extension(_) => "'extension' is a command of Azure's agent; this one runs no extensions",
            Self::Genkey(_) => {
                "'genkey' is a command of Azure's agent; this one makes its key when it is connected"
            }
            Self::License(_) => {
                "'license' is a command of Azure's agent; this one is a part of Arcadia, under Apache-2.0"
            }
            Self::Logs(_) => {
                "'logs' is a command of Azure's agent; this one's log is /var/opt/azcmagent/log/himds.log"
            }
            Self::Upgrade(_) => {
                "'upgrade' is a command of Azure's agent; this one is a part of Arcadia and changes with it"
            }
        }
    }
}

#[derive(Args)]
pub(super) struct Show {
    /// Only these, by title or JSON name
    #[arg(value_name = "PROPERTY")]
    pub(super) properties: Vec<String>,
}

#[derive(Args)]
struct Auth {
    /// Tenant id or domain name
    #[arg(short = 't', long)]
    tenant_id: Option<String>,
    /// Application id of a service principal
    #[arg(short = 'i', long)]
    service_principal_id: Option<String>,
    /// Secret of the service principal
    #[arg(short = 'p', long)]
    service_principal_secret: Option<String>,
    /// PEM file with the service principal's certificate and key
    #[arg(long, value_name = "FILE")]
    service_principal_cert: Option<PathBuf>,
    /// Sign in on another device (what is done when nothing else is given)
    #[arg(long)]
    use_device_code: bool,
    /// Token for the resource manager
    #[arg(long)]
    access_token: Option<String>,
}

impl Auth {
    fn sign_in(&self) -> Result<SignIn, OnboardFault> {
        let wrong = |failure, text: &str| Err(OnboardFault::new(failure, text));
        let ways = [self.service_principal_id.is_some(), self.use_device_code, self.access_token.is_some()];
        if ways.iter().filter(|given| **given).count() > 1 {
            return wrong(
                Failure::BadArguments,
                "give one of --service-principal-id, --use-device-code and --access-token",
            );
        }
        let secret = |secret: &String| Zeroizing::new(secret.clone());
        match (&self.service_principal_id, &self.service_principal_secret, &self.service_principal_cert) {
            (Some(_), Some(_), Some(_)) => wrong(
                Failure::BadArguments,
                "give --service-principal-secret or --service-principal-cert, not both",
            ),
            (Some(_), None, None) => wrong(
                Failure::MissingParameter,
                "--service-principal-id needs --service-principal-secret or --service-principal-cert",
            ),
            (None, Some(_), _) | (None, _, Some(_)) => {
                wrong(Failure::MissingParameter, "--service-principal-id is missing")
            }
            (Some(id), Some(given), None) => {
                Ok(SignIn::Secret { client_id: id.clone(), secret: secret(given) })
            }
            (Some(id), None, Some(file)) => {
                Ok(SignIn::Certificate { client_id: id.clone(), file: file.clone() })
            }
            (None, None, None) => Ok(match &self.access_token {
                Some(token) => SignIn::AccessToken(secret(token)),
                None => SignIn::DeviceCode,
            }),
        }
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  azcmagent connect -s SUBSCRIPTION -g arc-hack -l uksouth \\
    -t TENANT -i APP_ID -p SECRET --tags 'datacentre=The_Citadel'
  azcmagent connect -s SUBSCRIPTION -g arc-hack -l uksouth \\
    -n ubuntu-01 --use-device-code")]
pub(super) struct Connect {
    /// Subscription, by id or name
    #[arg(short, long)]
    subscription_id: Option<String>,
    /// Resource group; made where there is none
    #[arg(short = 'g', long)]
    resource_group: Option<String>,
    /// Location, such as uksouth
    #[arg(short, long)]
    location: Option<String>,
    /// Name of the machine's resource [default: this host's name]
    #[arg(short = 'n', long)]
    resource_name: Option<String>,
    #[command(flatten)]
    auth: Auth,
    /// Tags, such as 'datacentre=The_Citadel,platform=VMware_vSphere'
    #[arg(long, default_value = "")]
    tags: String,
    /// Identifies this onboarding in logs
    #[arg(long)]
    correlation_id: Option<Uuid>,
    /// Cloud to connect to [default: AzureCloud; Arcadia for a site under a domain of its own]
    #[arg(long)]
    cloud: Option<String>,
    /// Domain of a site that has names of its own [default: $ARCADIA_DOMAIN]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["login_url", "management_url", "his_url"])]
    domain: Option<String>,
    /// Where a site with other names signs people and machines in
    #[arg(long, value_name = "URL")]
    login_url: Option<String>,
    /// Where such a site's resource manager is
    #[arg(long, value_name = "URL")]
    management_url: Option<String>,
    /// What tokens for that resource manager are asked for [default: Azure's]
    #[arg(long, value_name = "URL")]
    management_audience: Option<String>,
    /// Where such a site takes heartbeats
    #[arg(long, value_name = "URL")]
    his_url: Option<String>,
    /// What tokens for heartbeats are asked for [default: Azure's]
    #[arg(long, value_name = "URL", requires = "his_url")]
    his_audience: Option<String>,
}

impl Connect {
    pub(super) fn request(self, surroundings: &Surroundings) -> Result<ConnectRequest, OnboardFault> {
        let missing = |flag: &str| OnboardFault::new(Failure::MissingParameter, format!("{flag} is missing"));
        let (cloud, endpoints) = self.endpoints(surroundings.domain.as_deref())?;
        let sign_in = self.auth.sign_in()?;
        let needs_tenant = matches!(sign_in, SignIn::Secret { .. } | SignIn::Certificate { .. });
        if needs_tenant && self.auth.tenant_id.is_none() {
            return Err(missing("--tenant-id (-t), which a service principal needs,"));
        }
        Ok(ConnectRequest {
            subscription: self.subscription_id.ok_or_else(|| missing("--subscription-id (-s)"))?,
            resource_group: self.resource_group.ok_or_else(|| missing("--resource-group (-g)"))?,
            location: self.location.ok_or_else(|| missing("--location (-l)"))?,
            resource_name: self.resource_name,
            tenant: self.auth.tenant_id,
            cloud,
            tags: tags(&self.tags)?,
            correlation_id: self.correlation_id,
            sign_in,
            endpoints,
            https_proxy: surroundings.https_proxy.clone(),
            no_proxy: surroundings.no_proxy.clone(),
            certificate_files: surroundings.certificate_files(),
        })
    }

    /// The cloud's name and where it is. Flags come before the environment.
    fn endpoints(&self, environment: Option<&str>) -> Result<(String, Endpoints), OnboardFault> {
        let wrong = |text: &str| OnboardFault::new(Failure::BadArguments, text);
        let given = [&self.login_url, &self.management_url, &self.his_url];
        let own = given.iter().filter(|url| url.is_some()).count();
        let is_azure = self.cloud.as_deref() == Some(AZURE_CLOUD);
        let environment = environment.filter(|_| own == 0 && !is_azure);
        if let Some(domain) = self.domain.as_deref().or(environment) {
            if !is_site_domain(domain) {
                return Err(wrong(
                    "the domain must be a name such as example.net and not an address (--domain, ARCADIA_DOMAIN)",
                ));
            }
            if is_azure {
                return Err(wrong("AzureCloud has no --domain; leave --cloud out"));
            }
            let cloud = self.cloud.clone().unwrap_or_else(|| OWN_CLOUD.to_owned());
            return Ok((cloud, Endpoints::of_domain(&domain.to_lowercase())));
        }
        let cloud = self.cloud.clone().unwrap_or_else(|| AZURE_CLOUD.to_owned());
        if (own != 0 && own != 3) || (own == 0 && cloud != AZURE_CLOUD) {
            return Err(wrong(
                "for a cloud other than AzureCloud give --domain, or --login-url, --management-url and --his-url",
            ));
        }
        let mut endpoints = Endpoints::default();
        let set = |place: &mut String, url: &Option<String>| {
            if let Some(url) = url {
                *place = url.trim_end_matches('/').to_owned();
            }
        };
        set(&mut endpoints.login, &self.login_url);
        set(&mut endpoints.management, &self.management_url);
        set(&mut endpoints.his, &self.his_url);
        set(&mut endpoints.his_audience, &self.his_audience);
        if let Some(audience) = &self.management_audience {
            endpoints.management_audience = audience.clone();
        }
        Ok((cloud, endpoints))
    }
}

/// `a=b,c="d e"`.
fn tags(text: &str) -> Result<BTreeMap<String, String>, OnboardFault> {
    let wrong = |text: &str| OnboardFault::new(Failure::BadArguments, format!("--tags: {text}"));
    let mut tags = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| wrong("write them as name=value,name=value"))?;
        let (name, value) = (bare(name), bare(value));
        let too_long = name.chars().count() > TAG_NAME_CHARACTERS_MAX
            || value.chars().count() > TAG_VALUE_CHARACTERS_MAX;
        if name.is_empty() || too_long {
            return Err(wrong("a name has 1 to 512 characters, a value at most 256"));
        }
        if tags.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(wrong(&format!("'{name}' is given twice")));
        }
    }
    if tags.len() > TAGS_MAX { Err(wrong("at most 50 can be given")) } else { Ok(tags) }
}

/// Without blanks around it and without quotes.
fn bare(text: &str) -> &str {
    let text = text.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
    quoted.unwrap_or(text)
}

#[derive(Args)]
#[command(after_help = "Examples:
  azcmagent disconnect -i APP_ID -p SECRET
  azcmagent disconnect --force-local-only")]
pub(super) struct Disconnect {
    #[command(flatten)]
    auth: Auth,
    /// Forget the connection on this machine and leave the site alone
    #[arg(short, long)]
    force_local_only: bool,
}

impl Disconnect {
    pub(super) fn request(self) -> Result<DisconnectRequest, OnboardFault> {
        let sign_in = if self.force_local_only { None } else { Some(self.auth.sign_in()?) };
        Ok(DisconnectRequest { sign_in, tenant: self.auth.tenant_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use proptest::prelude::*;

    #[test]
    fn flags_do_not_clash() {
        Azcmagent::command().debug_assert();
    }

    #[test]
    fn tags_are_pairs() {
        let read = tags("datacentre=The_Citadel, platform=\"VMware vSphere\",empty=").unwrap();
        assert_eq!(read["platform"], "VMware vSphere");
        assert_eq!((read["datacentre"].as_str(), read["empty"].as_str()), ("The_Citadel", ""));
        assert!(tags("").unwrap().is_empty());
        let many: Vec<String> = (0..51).map(|n| format!("t{n}=v")).collect();
        for text in ["a", "=b", "a=b,a=c", &many.join(","), &format!("a={}", "x".repeat(257))] {
            assert_eq!(tags(text).unwrap_err().failure, Failure::BadArguments, "{text:.20}");
        }
    }

    fn connect(flags: &[&str]) -> Result<ConnectRequest, Failure> {
        connect_in(None, flags)
    }

    fn connect_in(domain: Option<&str>, flags: &[&str]) -> Result<ConnectRequest, Failure> {
        let all = ["azcmagent", "connect", "-s", "S", "-g", "G", "-l", "L"].iter().chain(flags);
        let Command::Connect(connect) = Azcmagent::try_parse_from(all).unwrap().command else { panic!() };
        let domain = domain.map(str::to_owned);
        let nothing = Surroundings { https_proxy: None, no_proxy: None, certificate_file: None, domain };
        connect.request(&nothing).map_err(|fault| fault.failure)
    }

    #[test]
    fn ways_to_sign_in() {
        let secret = connect(&["-i", "I", "-p", "P", "-t", "T"]).unwrap().sign_in;
        assert!(matches!(secret, SignIn::Secret { client_id, secret } if client_id == "I" && *secret == "P"));
        assert!(matches!(connect(&[]).unwrap().sign_in, SignIn::DeviceCode));
        assert!(matches!(connect(&["--access-token", "x"]).unwrap().sign_in, SignIn::AccessToken(_)));
        let cert = connect(&["-i", "I", "--service-principal-cert", "f", "-t", "T"]).unwrap().sign_in;
        assert!(matches!(cert, SignIn::Certificate { .. }));
        let failure = |flags: &[&str]| connect(flags).err().unwrap();
        assert_eq!(failure(&["-i", "I", "-p", "P"]), Failure::MissingParameter);
        assert_eq!(failure(&["-i", "I", "-t", "T"]), Failure::MissingParameter);
        assert_eq!(failure(&["-p", "P", "-t", "T"]), Failure::MissingParameter);
        assert_eq!(failure(&["-i", "I", "-p", "P", "--use-device-code"]), Failure::BadArguments);
        assert_eq!(failure(&["--access-token", "x", "--use-device-code"]), Failure::BadArguments);
    }

    #[test]
    fn a_cloud_of_its_own_needs_its_addresses() {
        assert_eq!(connect(&["--cloud", "Azure.Local"]).err(), Some(Failure::BadArguments));
        assert_eq!(connect(&["--login-url", "https://l"]).err(), Some(Failure::BadArguments));
        let all = [
            "--cloud",
            "Azure.Local",
            "--login-url",
            "https://l/",
            "--management-url",
            "https://m",
            "--his-url",
            "https://h",
        ];
        assert_eq!(connect(&all).unwrap().endpoints.login, "https://l");
        // What is given comes before what the environment says.
        assert_eq!(connect_in(Some("example.net"), &all).unwrap().endpoints.login, "https://l");
    }

    #[test]
    fn a_domain_is_enough_for_a_site_of_its_own() {
        let own = Endpoints::of_domain("example.net");
        let flag = connect(&["--domain", "Example.NET"]).unwrap();
        assert_eq!((flag.cloud.as_str(), flag.endpoints), ("Arcadia", own.clone()));
        let told = connect_in(Some("example.net"), &["--cloud", "Ours"]).unwrap();
        assert_eq!((told.cloud.as_str(), told.endpoints), ("Ours", own));
        let azure = connect_in(Some("example.net"), &["--cloud", "AzureCloud"]).unwrap();
        assert_eq!(azure.endpoints, Endpoints::default());
        let long = format!("{}net", "a.".repeat(100));
        for wrong in ["example", "a b.net", "x.net/", "-a.net", "", "10.0.0.1", &long] {
            let flag = format!("--domain={wrong}");
            assert_eq!(connect(&[&flag]).err(), Some(Failure::BadArguments), "{wrong:.20}");
            assert_eq!(connect_in(Some(wrong), &[]).err(), Some(Failure::BadArguments), "{wrong:.20}");
        }
        let both = connect(&["--domain", "example.net", "--cloud", "AzureCloud"]);
        assert_eq!(both.err(), Some(Failure::BadArguments));
    }

    proptest! {
        #[test]
        fn reading_tags_never_panics(text in ".{0,100}") {
            let _ = tags(&text);
        }
    }
}
