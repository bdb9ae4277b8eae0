//! The credentials providers, as the configuration names them.

use std::fmt;

use crate::s3::credentials::Credentials;

/// A credentials provider and its settings. Equal logins share their credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Fixed keys from the configuration.
    Keys(Credentials),
    /// Fixed keys from the environment.
    EnvironmentKeys(Credentials),
    /// AWS's default provider chain: environment, profile files, web identity, container, instance
    /// (AWS SDKs and Tools Reference Guide, "Standardized credential
    /// providers").
    Chain,
    /// A profile of the shared files, by name: keys, SSO, a role, or a program.
    Profile(String),
    /// The token file and the role that environment variables name (IRSA on EKS).
    WebIdentity,
    /// A token file, exchanged for a role's credentials (`AssumeRoleWithWebIdentity`).
    TokenFile {
        path: String,
        /// `arn:aws:iam::…:role/…`.
        role_arn: String,
        /// The session name, which CloudTrail shows.
        session_name: Option<String>,
    },
    /// The endpoint that a container's environment variables name (ECS, EKS Pod Identity).
    Container,
    /// The EC2 instance metadata service, version 2.
    Instance,
    /// A role, assumed with other credentials (`AssumeRole`).
    Role(Role),
}

/// A role to assume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// `arn:aws:iam::…:role/…`.
    pub arn: String,
    /// A value that the role's trust policy may require ("confused deputy", AWS IAM User Guide).
    pub external_id: Option<String>,
    /// The session name, which CloudTrail shows.
    pub session_name: Option<String>,
    /// The credentials that assume it.
    pub source: Box<Login>,
}

impl Login {
    /// The keys, if they are fixed.
    pub fn keys(&self) -> Option<&Credentials> {
        match self {
            Login::Keys(keys) | Login::EnvironmentKeys(keys) => Some(keys),
            _ => None,
        }
    }

    /// Tells an operator what to check after a failure.
    pub fn advice(&self) -> &'static str {
        match self {
            Login::Keys(_) => "check the access key id, the secret access key and their expiry",
            Login::EnvironmentKeys(_) => {
                "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their expiry in the environment"
            }
            Login::Chain => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a profile or a role to \
                 this machine; 'credentials: anonymous' reads public buckets"
            }
            Login::Profile(_) => {
                "check the profile in ~/.aws/config and ~/.aws/credentials (AWS_CONFIG_FILE, \
                 AWS_SHARED_CREDENTIALS_FILE); with SSO run 'aws sso login'; run a credential_process \
                 by hand to see its messages"
            }
            Login::WebIdentity => {
                "check AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN and the role's trust policy"
            }
            Login::TokenFile { .. } => {
                "check web_identity_token_file, role_arn and the role's trust policy"
            }
            Login::Container => {
                "check AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI, the authorization \
                 token (AWS_CONTAINER_AUTHORIZATION_TOKEN) and the role of the task or pod"
            }
            Login::Instance => {
                "check that this instance has a role and that its metadata service responds (in a \
                 container its hop limit must be 2)"
            }
            Login::Role(_) => {
                "check role_arn, external_id, the role's trust policy, and the credentials that \
                 assume it"
            }
        }
    }
}

/// As it follows `credentials of …` in messages.
impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Login::Keys(_) => f.write_str("the configuration"),
            Login::EnvironmentKeys(_) => f.write_str("the environment"),
            Login::Chain => f.write_str("the AWS credential chain"),
            Login::Profile(name) => write!(f, "the profile {name:?}"),
            Login::WebIdentity => f.write_str("the web identity of the environment"),
            Login::TokenFile { role_arn, .. } => write!(f, "the web identity for {role_arn}"),
            Login::Container => f.write_str("the container endpoint"),
            Login::Instance => f.write_str("the instance metadata service"),
            Login::Role(role) => write!(f, "the role {}", role.arn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::credentials;

    #[test]
    fn a_login_is_shown_by_name_and_without_secrets() {
        let keys = credentials::fixed("AKIAEXAMPLE", "hush", Some("hush".to_owned()));
        let role = Role {
            arn: "arn:aws:iam::111122223333:role/reader".to_owned(),
            external_id: None,
            session_name: None,
            source: Box::new(Login::Keys(keys)),
        };
        let login = Login::Role(role);
        assert_eq!(login.to_string(), "the role arn:aws:iam::111122223333:role/reader");
        assert!(!format!("{login:?}").contains("hush"));
        assert_eq!(Login::Profile("lab".to_owned()).to_string(), "the profile \"lab\"");
    }
}
