//! From identities to the sources of credentials, one for all mounts that ask as the same.

use std::sync::Arc;

use crate::config::credentials::{self, AwsKeys, Given, Identity};
use crate::config::reader::Reader;
use crate::s3::credentials::handle::Source;
use crate::s3::credentials::login::{Login, Role};
use crate::upstream::proxy::Proxies;

/// The top level's identity, and the sources so far.
pub(super) struct Sources {
    inherited: Given<Identity>,
    sts_region: Option<String>,
    proxies: Arc<Proxies>,
    known: Vec<Arc<Source>>,
}

impl Sources {
    /// Reads the top level; STS is asked in `region` where there is one.
    pub(super) fn read(
        reader: &mut Reader,
        keys: &mut AwsKeys,
        region: Option<&str>,
        proxies: Arc<Proxies>,
    ) -> Sources {
        Sources {
            inherited: credentials::top_level(reader, keys),
            sts_region: region.map(str::to_owned),
            proxies,
            known: Vec::new(),
        }
    }

    /// The profile that a mount with this identity of its own asks with, if one is named.
    pub(super) fn profile_of<'a>(&'a self, own: &'a Given<Identity>) -> Option<&'a str> {
        let login = match (own, &self.inherited) {
            (Given::Unset, Given::Is(Identity::Login(login)))
            | (Given::Is(Identity::Login(login)), _) => login,
            (Given::Is(Identity::Role(_)), Given::Is(Identity::Login(login))) => login,
            _ => return None,
        };
        match login {
            Login::Profile(name) => Some(name),
            Login::Role(role) => match &*role.source {
                Login::Profile(name) => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    /// The credentials of a mount with this identity of its own: outside `None` where something
    /// is wrong, inside where requests go unsigned.
    pub(super) fn of(&mut self, own: Given<Identity>) -> Option<Option<Arc<Source>>> {
        let inherited = match &self.inherited {
            Given::Is(Identity::Login(login)) => Some(login.clone()),
            Given::Is(Identity::Role(role)) => Some(Login::Role(role.clone())),
            Given::Is(Identity::Anonymous) | Given::Unset | Given::Wrong => None,
        };
        let login = match (own, &self.inherited) {
            (Given::Wrong, _) | (Given::Unset | Given::Is(Identity::Role(_)), Given::Wrong) => {
                return None;
            }
            (Given::Is(Identity::Anonymous), _)
            | (Given::Unset, Given::Is(Identity::Anonymous)) => return Some(None),
            (Given::Is(Identity::Login(login)), _) => login,
            (Given::Is(Identity::Role(role)), _) => {
                let source = Box::new(inherited.unwrap_or(Login::Chain));
                Login::Role(Role { source, ..role })
            }
            (Given::Unset, _) => inherited.unwrap_or(Login::Chain),
        };
        Some(Some(self.source(login)))
    }

    fn source(&mut self, login: Login) -> Arc<Source> {
        if let Some(known) = self.known.iter().find(|source| *source.login() == login) {
            return Arc::clone(known);
        }
        let source = Arc::new(
            Source::new(login, self.sts_region.clone()).through(Arc::clone(&self.proxies)),
        );
        self.known.push(Arc::clone(&source));
        source
    }
}
