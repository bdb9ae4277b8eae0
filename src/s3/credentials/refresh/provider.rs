//! Loads credentials through the providers of the aws-config crate.
//!
//! Each load builds a new provider with its own connection. A provider caches the files that it has
//! read, and returns the metadata service's last response instead of an error. Each load must see
//! the current files, and report errors.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result as Provided};
use aws_smithy_http_client::tls::Provider as Tls;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder as HttpClient, Connector};

use crate::s3::credentials::login::{Login, Role};
use crate::s3::credentials::refresh::{failure, proxied};
use crate::s3::credentials::{Credentials, are_valid_fields};
use crate::upstream::proxy::Proxies;

/// Timeout of one load. A `credential_process` may call a slow service.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The default session name, which CloudTrail shows.
const SESSION_NAME: &str = "s3proxy";

/// The region of STS if neither the configuration nor the profile sets one.
const DEFAULT_REGION: &str = "us-east-1";

/// A stateless client for HTTP and HTTPS. It is a macro because its type belongs to a crate that is
/// not our dependency.
macro_rules! http_client {
    ($proxies:expr) => {{
        let proxies = proxied::config($proxies);
        HttpClient::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder();
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
            let connector = connector.proxy_config(proxies.clone());
            connector.tls_provider(Tls::Rustls(CryptoMode::Ring)).build()
        })
    }};
}

/// Loads credentials.
///
/// # Errors
/// The reason, without secrets.
pub(super) async fn load(
    login: &Login,
    region: Option<&str>,
    proxies: &Proxies,
) -> Result<Credentials, String> {
    let loaded = match tokio::time::timeout(LOAD_TIMEOUT, provide(login, region, proxies)).await {
        Ok(provided) => provided.map_err(|error| describe(login, &error))?,
        Err(_) => return Err(format!("no response within {} s", LOAD_TIMEOUT.as_secs())),
    };
    if !are_valid_fields(&loaded) {
        return Err("the credentials issued are malformed: a part of them is empty, too long, \
                    or contains a space or a line break"
            .to_owned());
    }
    Ok(loaded)
}

fn describe(login: &Login, error: &CredentialsError) -> String {
    match (login, error) {
        (Login::Chain, CredentialsError::CredentialsNotLoaded(_)) => {
            "the environment, profile files, web identity, container endpoint and instance metadata \
             have none"
                .to_owned()
        }
        _ => failure::describe(error),
    }
}

async fn provide(login: &Login, region: Option<&str>, proxies: &Proxies) -> Provided {
    match login {
        Login::Keys(keys) | Login::EnvironmentKeys(keys) => Ok(keys.clone()),
        Login::Chain => {
            check_container_variables()?;
            let region = sts_region(region, None).await;
            let chain = DefaultCredentialsChain::builder().region(region.clone());
            chain.configure(config(region, proxies)).build().await.provide_credentials().await
        }
        Login::Profile(name) => {
            let config = config(sts_region(region, Some(name)).await, proxies);
            let profile = ProfileFileCredentialsProvider::builder().configure(&config);
            profile.profile_name(name).build().provide_credentials().await
        }
        Login::WebIdentity => {
            let config = config(sts_region(region, None).await, proxies);
            let identity = WebIdentityTokenCredentialsProvider::builder().configure(&config);
            identity.build().provide_credentials().await
        }
        Login::TokenFile { path, role_arn, session_name } => {
            let config = config(sts_region(region, None).await, proxies);
            let exchange = StaticConfiguration {
                web_identity_token_file: path.into(),
                role_arn: role_arn.clone(),
                session_name: session_name.as_deref().unwrap_or(SESSION_NAME).to_owned(),
            };
            let identity = WebIdentityTokenCredentialsProvider::builder().configure(&config);
            identity.static_configuration(exchange).build().provide_credentials().await
        }
        Login::Container => {
            check_container_variables()?;
            let config = config(sts_region(region, None).await, proxies);
            let endpoint = EcsCredentialsProvider::builder().configure(&config).build();
            endpoint.provide_credentials().await
        }
        Login::Instance => {
            let config = config(sts_region(region, None).await, proxies);
            let instance = ImdsCredentialsProvider::builder().configure(&config).build();
            instance.provide_credentials().await
        }
        Login::Role(role) => assume(role, region, proxies).await,
    }
}

/// Rejects values that would make the container provider panic.
fn check_container_variables() -> Result<(), CredentialsError> {
    for (variable, beginnings) in [
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", &["/"][..]),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &["http://", "https://"]),
    ] {
        let Ok(value) = std::env::var(variable) else { continue };
        if !beginnings.iter().any(|beginning| value.starts_with(beginning)) {
            let beginnings = beginnings.join(" or ");
            return Err(CredentialsError::invalid_configuration(format!(
                "{variable} must begin with {beginnings}"
            )));
        }
    }
    Ok(())
}

async fn assume(role: &Role, region: Option<&str>, proxies: &Proxies) -> Provided {
    let source = Box::pin(provide(&role.source, region, proxies)).await?;
    let profile = match &*role.source {
        Login::Profile(name) => Some(name.as_str()),
        _ => None,
    };
    let settings = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client!(proxies))
        .region(sts_region(region, profile).await)
        .credentials_provider(source)
        .load()
        .await;
    let mut provider = AssumeRoleProvider::builder(&role.arn)
        .configure(&settings)
        .session_name(role.session_name.as_deref().unwrap_or(SESSION_NAME));
    if let Some(external_id) = &role.external_id {
        provider = provider.external_id(external_id);
    }
    provider.build().await.provide_credentials().await
}

/// The region of STS: that of the configuration, of the profile, or the default. The libraries
/// would also query the instance metadata service, which takes seconds if there is none.
async fn sts_region(configured: Option<&str>, profile: Option<&str>) -> Region {
    if let Some(region) = configured {
        return Region::new(region.to_owned());
    }
    let mut files = ProfileFileRegionProvider::builder();
    if let Some(name) = profile {
        files = files.profile_name(name);
    }
    files.build().region().await.unwrap_or(Region::from_static(DEFAULT_REGION))
}

fn config(region: Region, proxies: &Proxies) -> ProviderConfig {
    ProviderConfig::without_region()
        .with_region(Some(region))
        .with_http_client(http_client!(proxies))
}
