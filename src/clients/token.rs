//! Logins with tokens in place of a password, as RDS and Aurora take them: a request to connect,
//! signed with credentials of AWS. A token lasts 15 minutes, so each new connection has its own.

use std::time::{Duration, SystemTime};

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use chrono::{DateTime, Utc};
use tokio::sync::OnceCell;

use crate::clients::address::{DatabaseUrl, encoded};
use crate::clients::aws::{config, refusal, root_cause};
use crate::clients::secret::SecretError;
use crate::model::clock::{Clock as _, SystemClock};
use crate::model::hint::Fault;

/// RDS takes a token for this long after it was signed.
const LIFE: Duration = Duration::from_secs(900);

/// The login of a role that RDS authenticates by tokens.
#[derive(Clone, Debug)]
pub(crate) struct TokenLogin {
    host: String,
    port: u16,
    user: String,
    aws: OnceCell<SdkConfig>,
}

impl TokenLogin {
    /// The login of the address's user. The address must leave the connection encrypted, as a token
    /// travels in it.
    ///
    /// # Errors
    /// The address names no user, or no encryption.
    pub(crate) fn of(url: &DatabaseUrl) -> Result<Self, Fault> {
        let (host, port) = url.host_and_port();
        if host.starts_with('/') {
            return Err(Fault::new("a login by tokens needs TLS, and the address names a socket")
                .remedy("name the host of RDS, or remove auth"));
        }
        if let Some(mode) = url.ssl_mode().filter(|mode| !is_encrypted(mode)) {
            return Err(Fault::new(format!(
                "a login by tokens needs TLS, and the address has sslmode={mode}"
            ))
            .remedy("remove sslmode from the address"));
        }
        let user = url.user().ok_or_else(|| {
            Fault::new("a login by tokens needs a user, and the address names none")
                .remedy("write postgres://USER@HOST:5432/DATABASE")
        })?;
        let (host, user) = (host.trim_end_matches('.').to_owned(), user.to_owned());
        Ok(Self { host, port, user, aws: OnceCell::new() })
    }

    /// A new token.
    ///
    /// # Errors
    /// No region is known, or AWS has no credentials for this process.
    pub(crate) async fn token(&self) -> Result<String, SecretError> {
        if let Some(fault) = refusal(|name| std::env::var(name).ok()) {
            return Err(SecretError::from(fault));
        }
        let aws = self.aws.get_or_init(config).await;
        let region = region_of(&self.host).or_else(|| aws.region().map(Region::to_string));
        let region = region.ok_or_else(|| {
            SecretError::from(
                Fault::new(format!("no region is known for the login to {}", self.host))
                    .remedy("set AWS_REGION, or write the host as RDS names it"),
            )
        })?;
        let missing = |why: String| {
            SecretError::from(
                Fault::new(format!("there are no AWS credentials for a token ({why})"))
                    .remedy("set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
            )
        };
        let provider =
            aws.credentials_provider().ok_or_else(|| missing("no source of them".into()))?;
        let credentials = provider.provide_credentials().await;
        let credentials = credentials.map_err(|error| missing(root_cause(&error)))?;
        Ok(self.signed(&region, credentials, SystemClock.now())?)
    }

    /// The token as of `now`: the address of the request without its scheme.
    fn signed(
        &self,
        region: &str,
        credentials: Credentials,
        now: DateTime<Utc>,
    ) -> Result<String, Fault> {
        let wrong = |error: &dyn std::fmt::Display| {
            Fault::new(format!("no token could be signed: {error}"))
                .remedy("check host and user of the address, and the AWS credentials")
        };
        let Self { host, port, user, .. } = self;
        let token = format!("{host}:{port}/?Action=connect&DBUser={}", encoded(user));
        let url = format!("https://{token}");
        let mut settings = SigningSettings::default();
        settings.expires_in = Some(LIFE);
        settings.signature_location = SignatureLocation::QueryParams;
        let identity = credentials.into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name("rds-db")
            .time(SystemTime::from(now))
            .settings(settings)
            .build()
            .map_err(|error| wrong(&error))?
            .into();
        let body = SignableBody::Bytes(&[]);
        let request = SignableRequest::new("GET", &url, std::iter::empty(), body);
        let request = request.map_err(|error| wrong(&error))?;
        let (signed, _) = sign(request, &params).map_err(|error| wrong(&error))?.into_parts();
        let more =
            signed.params().iter().map(|(name, value)| format!("&{name}={}", encoded(value)));
        Ok(token + &more.collect::<String>())
    }
}

/// Whether a connection of this mode is encrypted or fails.
fn is_encrypted(mode: &str) -> bool {
    matches!(mode, "require" | "verify-ca" | "verify-full")
}

/// The region in the name of a host of RDS: `….REGION.rds.amazonaws.com`, or in China
/// `….rds.REGION.amazonaws.com.cn`.
fn region_of(host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    let labels: Vec<&str> = host.split('.').collect();
    let region = match labels[..] {
        [.., region, "rds", "amazonaws", "com"] => region,
        [.., "rds", region, "amazonaws", "com", "cn"] => region,
        _ => return None,
    };
    Some(region.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hint::Hinted as _;

    fn login(url: &str) -> TokenLogin {
        TokenLogin::of(&DatabaseUrl::new(url).unwrap()).unwrap()
    }

    /// The vector that AWS's own SDKs test.
    #[test]
    fn a_token_is_the_one_that_amazon_computes_for_the_same_input() {
        let login = login("postgres://peccy@prod-instance.us-east-1.rds.amazonaws.com:3306/x");
        let credentials = Credentials::new("akid", "secret", None, None, "test");
        let now = DateTime::from_timestamp(1_724_709_600, 0).unwrap();
        let token = login.signed("us-east-1", credentials, now).unwrap();
        assert_eq!(
            token,
            "prod-instance.us-east-1.rds.amazonaws.com:3306/?Action=connect&DBUser=peccy\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=akid%2F20240826%2Fus-east-1%2Frds-db%2Faws4_request\
             &X-Amz-Date=20240826T220000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=dd0cba843009474347af724090233265628ace491ea17ce3eb3da098b983ad89"
        );
    }

    #[test]
    fn the_region_is_in_the_hosts_name() {
        for (host, region) in [
            ("db.c9akciq32.eu-central-1.rds.amazonaws.com", Some("eu-central-1")),
            ("app.cluster-ro-c9a.us-gov-west-1.rds.amazonaws.com", Some("us-gov-west-1")),
            ("db.c9a.rds.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("DB.c9a.US-EAST-1.RDS.amazonaws.com", Some("us-east-1")),
            ("db.example.com", None),
        ] {
            assert_eq!(region_of(host).as_deref(), region, "{host}");
        }
    }

    #[test]
    fn an_address_without_encryption_or_user_takes_no_token() {
        for (url, facts) in [
            ("postgres://app@db/x?sslmode=disable", "has sslmode=disable"),
            ("postgres://app@db/x?sslmode=prefer", "has sslmode=prefer"),
            ("postgres://db/x", "names none"),
            ("postgres://app@/x?host=/var/run/postgresql", "names a socket"),
        ] {
            let fault = TokenLogin::of(&DatabaseUrl::new(url).unwrap()).unwrap_err();
            assert!(fault.facts().contains(facts) && fault.hint().is_some(), "{fault:?}");
        }
        for url in ["postgres://app@db/x", "postgres://app@db/x?sslmode=require"] {
            assert!(TokenLogin::of(&DatabaseUrl::new(url).unwrap()).is_ok(), "{url}");
        }
    }
}
