use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use windlass_store::membership::MemberKeys;
use windlass_store::{ClientTlsFiles, EtcdConfig, EtcdPassword, EtcdStore, PemFile, Store};

/// How to reach etcd. The same names in flags and in the environment, and without `etcd_` in the file's section `etcd`,
/// which workers and coordinators share.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "etcd")]
pub(crate) struct EtcdOptions {
    /// Members of etcd, separated by commas
    #[arg(
        id = "etcd_endpoints",
        long = "etcd-endpoints",
        value_name = "http://HOST:PORT,...",
        env = "WINDLASS_ETCD_ENDPOINTS",
        value_delimiter = ','
    )]
    pub(crate) endpoints: Option<Vec<String>>,
    /// User of etcd, if it asks for one
    #[arg(id = "etcd_user", long = "etcd-user", value_name = "NAME", env = "WINDLASS_ETCD_USER")]
    pub(crate) user: Option<String>,
    /// File with the user's password
    #[arg(
        id = "etcd_password_file",
        long = "etcd-password-file",
        value_name = "FILE",
        env = "WINDLASS_ETCD_PASSWORD_FILE"
    )]
    pub(crate) password_file: Option<PathBuf>,
    /// PEM file of the authorities that may vouch for etcd, for https
    #[arg(id = "etcd_ca", long = "etcd-ca", value_name = "FILE", env = "WINDLASS_ETCD_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// PEM file of the certificate to show to etcd
    #[arg(
        id = "etcd_certificate",
        long = "etcd-certificate",
        value_name = "FILE",
        env = "WINDLASS_ETCD_CERTIFICATE"
    )]
    pub(crate) certificate: Option<PathBuf>,
    /// PEM file of that certificate's private key
    #[arg(id = "etcd_key", long = "etcd-key", value_name = "FILE", env = "WINDLASS_ETCD_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// How long a call of etcd may take, in milliseconds [default: 5000]
    #[arg(
        id = "etcd_timeout_ms",
        long = "etcd-timeout-ms",
        value_name = "MS",
        env = "WINDLASS_ETCD_TIMEOUT_MS"
    )]
    pub(crate) timeout_ms: Option<u64>,
    /// Name of the cluster, so that several can share an etcd [default: main]
    #[arg(long, value_name = "NAME", env = "WINDLASS_CLUSTER")]
    pub(crate) cluster: Option<String>,
}

/// A cluster's place in etcd.
#[derive(Debug)]
pub(crate) struct EtcdSettings {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cluster: String,
    pub(crate) members: MemberKeys,
}

impl EtcdOptions {
    /// These options, completed by others.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            endpoints: self.endpoints.or(other.endpoints),
            user: self.user.or(other.user),
            password_file: self.password_file.or(other.password_file),
            ca: self.ca.or(other.ca),
            certificate: self.certificate.or(other.certificate),
            key: self.key.or(other.key),
            timeout_ms: self.timeout_ms.or(other.timeout_ms),
            cluster: self.cluster.or(other.cluster),
        }
    }

    /// The name of the first of these that is set.
    pub(crate) fn first_set(&self) -> Option<&'static str> {
        let fields = [
            ("etcd_endpoints", self.endpoints.is_some()),
            ("etcd_user", self.user.is_some()),
            ("etcd_password_file", self.password_file.is_some()),
            ("etcd_ca", self.ca.is_some()),
            ("etcd_certificate", self.certificate.is_some()),
            ("etcd_key", self.key.is_some()),
            ("etcd_timeout_ms", self.timeout_ms.is_some()),
            ("cluster", self.cluster.is_some()),
        ];
        fields.into_iter().find_map(|(field, is_set)| is_set.then_some(field))
    }

    /// Checks every value and reads the files; `None` where no endpoints are set.
    pub(crate) fn settings(self) -> Result<Option<EtcdSettings>> {
        let first_set = self.first_set();
        let Some(endpoints) = self.endpoints else {
            return first_set.map_or(Ok(None), |field| {
                bail!("{field} is set and etcd_endpoints is not: name members of etcd as http://HOST:PORT, or set none")
            });
        };
        let mut config = EtcdConfig::new(endpoints);
        config.user = match (self.user, self.password_file) {
            (None, None) => None,
            (Some(user), Some(file)) => {
                let password = fs::read(&file)
                    .with_context(|| format!("etcd_password_file: cannot read {}", file.display()))?;
                let password = String::from_utf8(password).context("etcd_password_file is not UTF-8")?;
                Some((user, EtcdPassword(password.trim_end_matches(['\r', '\n']).to_owned())))
            }
            _ => bail!("etcd_user and etcd_password_file belong together: set both or none"),
        };
        config.tls = match self.ca {
            Some(ca) => {
                let files = ClientTlsFiles::new(PemFile::new("etcd_ca", ca));
                let (certificate, key) = (self.certificate, self.key);
                Some(files.with_identity(("etcd_certificate", certificate), ("etcd_key", key))?)
            }
            None if self.certificate.is_some() || self.key.is_some() => {
                bail!(
                    "etcd_certificate and etcd_key are for TLS: set etcd_ca too, to the authority of etcd's certificate"
                )
            }
            None => None,
        };
        match self.timeout_ms {
            Some(0) => bail!("etcd_timeout_ms is 0: use at least 1"),
            Some(timeout_ms) => config.timeout = Duration::from_millis(timeout_ms),
            None => {}
        }
        let cluster = self.cluster.unwrap_or_else(|| "main".to_owned());
        let members = MemberKeys::of(&cluster).context("cluster")?;
        let store = EtcdStore::new(config)?;
        Ok(Some(EtcdSettings { store: Arc::new(store), cluster, members }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> EtcdOptions {
        EtcdOptions { endpoints: Some(vec!["http://etcd:2379".into()]), ..EtcdOptions::default() }
    }

    #[tokio::test]
    async fn a_password_is_read_from_its_file_and_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "hunter2\n").unwrap();
        let password_file = Some(file.path().to_owned());
        let settings =
            EtcdOptions { user: Some("windlass".into()), password_file, ..options() }.settings().unwrap();
        let shown = format!("{:?}", settings.unwrap());
        assert!(shown.contains("windlass") && !shown.contains("hunter2"), "{shown}");
        assert!(EtcdOptions::default().settings().unwrap().is_none());
    }

    #[test]
    fn wrong_values_are_named_with_a_remedy() {
        let with = |change: fn(&mut EtcdOptions)| {
            let mut options = options();
            change(&mut options);
            format!("{:#}", options.settings().unwrap_err())
        };
        let cases = [
            (with(|o| o.user = Some("u".into())), "etcd_user and etcd_password_file belong together"),
            (
                with(|o| o.key = Some("k".into())),
                "etcd_certificate and etcd_key are for TLS: set etcd_ca too",
            ),
            (with(|o| o.ca = Some("/none".into())), "etcd_ca: cannot read /none"),
            (with(|o| o.timeout_ms = Some(0)), "etcd_timeout_ms is 0: use at least 1"),
            (
                with(|o| *o = EtcdOptions { timeout_ms: Some(9), ..EtcdOptions::default() }),
                "etcd_timeout_ms is set and etcd_endpoints is not: name members of etcd",
            ),
            (
                with(|o| *o = EtcdOptions { cluster: Some("c".into()), ..EtcdOptions::default() }),
                "cluster is set and etcd_endpoints is not",
            ),
            (with(|o| o.cluster = Some("a/b".into())), "cluster: 'a/b' is no name: use 1 to 128 letters"),
            (with(|o| o.endpoints = Some(vec!["etcd".into()])), "etcd_endpoints: 'etcd' is no endpoint"),
            (
                with(|o| o.endpoints = Some(vec!["https://etcd:2379".into()])),
                "etcd_endpoints: 'https://etcd:2379' does not fit: use http://host:port, or set etcd_ca",
            ),
        ];
        for (message, expected) in cases {
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
