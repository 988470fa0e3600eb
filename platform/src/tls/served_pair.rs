//! The pair that is served now. It is replaced when its files are.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio::time::Instant;

use super::files::{self, Files};
use super::pair::Pair;
use super::profile;
use super::settings::Settings;
use crate::error::StartError;

/// How often the files are read. A replacement serves new connections within 5 s, also when it takes two rounds.
const READ_EVERY: Duration = Duration::from_secs(1);

/// How often the days that are left are checked.
const CHECK_DAYS_EVERY: Duration = Duration::from_hours(24);

/// The configuration of TLS for new connections.
pub struct Tls {
    settings: Settings,
    current: RwLock<Arc<Current>>,
}

struct Current {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
    files: Files,
    from: Timestamp,
    expires: Timestamp,
    days_left: i64,
}

impl Tls {
    /// Reads and checks the files. The error names the file that is wrong. A certificate that is not valid yet may be by the
    /// next start: it is no error of the configuration.
    pub fn load(settings: &Settings) -> Result<Self, StartError> {
        let files = Files::read(settings).map_err(StartError::config)?;
        let current = Current::of(files, settings).map_err(StartError::config)?;
        let now = Timestamp::now();
        current.check_time(settings, now).map_err(|error| {
            if current.from > now { StartError::failed(error) } else { StartError::config(error) }
        })?;
        Ok(Self { settings: settings.clone(), current: RwLock::new(Arc::new(current)) })
    }

    /// Takes what [`Tls::hand_over`] of another process has given, which served with it or could have. It may have
    /// expired since: processes that serve with it go on too.
    pub fn take_over(settings: &Settings, handed_over: &[u8]) -> Result<Self, StartError> {
        let files = serde_json::from_slice(handed_over);
        let files = files.map_err(|error| StartError::failed(format!("TLS of the supervisor: {error}")))?;
        let current = Current::of(files, settings).map_err(StartError::config)?;
        Ok(Self { settings: settings.clone(), current: RwLock::new(Arc::new(current)) })
    }

    /// What is served with now, for another process. The private key is in it.
    pub fn hand_over(&self) -> Vec<u8> {
        serde_json::to_vec(&self.current().files).unwrap_or_default()
    }

    /// Whether these settings name the same files, to be used in the same way.
    pub fn is_of(&self, settings: &Settings) -> bool {
        let files = |settings: &Settings| {
            let clients = &settings.clients;
            (settings.certificate.clone(), settings.key.clone(), clients.certificates, clients.ca.clone())
        };
        files(&self.settings) == files(settings)
    }

    /// The configuration for the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current().config)
    }

    /// Whether the certificate is for this host: a name, or an address without brackets.
    pub fn covers(&self, host: &str) -> bool {
        let current = self.current();
        let (Ok(name), Ok(certificate)) =
            (ServerName::try_from(host), ParsedCertificate::try_from(&current.certificate))
        else {
            return false;
        };
        verify_server_name(&certificate, &name).is_ok()
    }

    /// In how many days the certificate expires.
    pub fn days_left(&self) -> i64 {
        self.current().days_left
    }

    /// Whether fewer days than `warn_days` are left, or less than a third of a life that is short.
    pub fn expires_soon(&self) -> bool {
        let current = self.current();
        let left = current.expires.duration_since(Timestamp::now());
        let warn_hours = i64::try_from(self.settings.warn_days.get()).unwrap_or(i64::MAX).saturating_mul(24);
        left < SignedDuration::from_hours(warn_hours).min(current.expires.duration_since(current.from) / 3)
    }

    /// Writes into the log until when the certificate is valid, and warns of a key that others may read.
    pub fn log(&self) {
        let current = self.current();
        let (file, expires, days_left) =
            (self.settings.certificate.display(), current.expires, current.days_left);
        tracing::info!(target: "server", %file, %expires, days_left, "certificate");
        self.warn_of_days();
        if files::is_readable_by_others(&self.settings.key) {
            let file = self.settings.key.display();
            tracing::warn!(target: "server", %file, "every user of this machine may read the private key: chmod 600");
        }
    }

    fn warn_of_days(&self) {
        if self.expires_soon() {
            let days_left = days_until(self.current().expires, Timestamp::now());
            let file = self.settings.certificate.display();
            tracing::warn!(target: "server", %file, days_left, "the certificate expires soon: replace it");
        }
    }

    /// Looks for replaced files, for ever. What cannot be served with is told once, and the pair from before is kept.
    pub async fn watch(&self) {
        let mut refused = None;
        let mut suspect = None;
        let mut days_at = Instant::now() + CHECK_DAYS_EVERY;
        loop {
            tokio::time::sleep(READ_EVERY).await;
            if Instant::now() >= days_at {
                days_at += CHECK_DAYS_EVERY;
                self.warn_of_days();
            }
            let settings = self.settings.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || Files::read(&settings)).await else {
                continue;
            };
            if read.as_ref().is_ok_and(|files| *files == self.current().files) {
                (refused, suspect) = (None, None);
                continue;
            }
            // Also what was refused: its time may have come.
            let error = match self.replace(&read) {
                Ok(()) => {
                    (refused, suspect) = (None, None);
                    continue;
                }
                Err(error) => error,
            };
            if refused.as_ref() == Some(&read) {
                continue;
            }
            // Two files cannot be replaced at one moment. What is wrong and the same a second later is wrong.
            if suspect.as_ref() != Some(&read) {
                suspect = Some(read);
                continue;
            }
            (refused, suspect) = (Some(read), None);
            tracing::error!(
                target: "server", error,
                "the replaced certificate cannot be used: the one from before is served"
            );
        }
    }

    fn replace(&self, read: &Result<Files, String>) -> Result<(), String> {
        let files = read.as_ref().map_err(Clone::clone)?;
        let current = Current::of(files.clone(), &self.settings)?;
        current.check_time(&self.settings, Timestamp::now())?;
        let (expires, days_left) = (current.expires, current.days_left);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
        let file = self.settings.certificate.display();
        tracing::info!(target: "server", %file, %expires, days_left, "certificate replaced");
        self.warn_of_days();
        Ok(())
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Current {
    fn of(files: Files, settings: &Settings) -> Result<Self, String> {
        let provider = profile::provider();
        let Pair { key, from, expires } = Pair::check(&files, settings, &provider)?;
        let certificate = key.cert.first().cloned().ok_or("no certificate")?;
        let config = profile::server_config(provider, key, settings, files.ca.as_deref())?;
        let days_left = days_until(expires, Timestamp::now());
        Ok(Self { config: Arc::new(config), certificate, files, from, expires, days_left })
    }

    /// Refuses a certificate that is not valid now. The last check: what it refuses is good but for the time.
    fn check_time(&self, settings: &Settings, now: Timestamp) -> Result<(), String> {
        let why = if self.expires < now {
            format!("has expired at {}", self.expires)
        } else if self.from > now {
            format!("is not valid before {}", self.from)
        } else {
            return Ok(());
        };
        let file = files::named("certificate", &settings.certificate);
        Err(files::with_advice(format!("{file}: the certificate {why}")))
    }
}

/// The whole days until then.
fn days_until(expires: Timestamp, now: Timestamp) -> i64 {
    (expires.as_second() - now.as_second()).div_euclid(24 * 60 * 60)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn settings(folder: &Path) -> Settings {
        serde_json::from_value(serde_json::json!({
            "certificate": folder.join("keys/public-key.pem"), "key": folder.join("keys/private-key.pem"),
            "handshake_timeout": "10s", "warn_days": 14,
            "clients": {
                "certificates": "none", "ca": "", "healthcheck_certificate": "", "healthcheck_key": "",
            },
            "redirect": {"enabled": false, "port": 80, "to_port": 0},
        }))
        .unwrap()
    }

    #[test]
    fn a_pair_that_is_handed_over_may_have_expired_but_has_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = (SystemTime::now() - Duration::from_hours(1)).into();
        let certificate = params.self_signed(&key).unwrap().pem().into_bytes();
        let expired = Files { certificate, key: key.serialize_pem().into_bytes(), ca: None };
        let taken = Tls::take_over(&settings, &serde_json::to_vec(&expired).unwrap()).unwrap();
        assert!(taken.days_left() < 0);
        assert!(taken.hand_over() == serde_json::to_vec(&expired).unwrap());
        // The controls: what is read from files must not have expired, and what is handed over must be a pair.
        fs::create_dir(folder.path().join("keys")).unwrap();
        fs::write(&settings.certificate, &expired.certificate).unwrap();
        fs::write(&settings.key, &expired.key).unwrap();
        let error = Tls::load(&settings).err().unwrap();
        assert!(error.to_string().contains("has expired") && error.exit_code == 2, "{error}");
        let other = KeyPair::generate().unwrap().serialize_pem().into_bytes();
        let mixed = Files { key: other, ..expired };
        assert!(Tls::take_over(&settings, &serde_json::to_vec(&mixed).unwrap()).is_err());
    }
}
