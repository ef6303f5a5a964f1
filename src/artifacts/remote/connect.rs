//! How each kind of store is reached: its client, its credentials, its limits.

use super::Client;
use super::answers::Bounded;
use super::credentials::{Renewed, read, read_or_none};
use crate::artifacts::place::{Checksum, Conditions, Kind, Objects};
use object_store::aws::{AmazonS3Builder, Checksum as S3Checksum, S3ConditionalPut, S3CopyIfNotExists};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the library repeats a request that was refused for the moment, before the caller hears of it.
const RETRY_TIMEOUT: Duration = Duration::from_secs(12);

/// How often it does so, at most.
const RETRIES: usize = 8;

/// Longest pause between two of these tries.
const RETRY_PAUSE: Duration = Duration::from_secs(3);

/// Region of S3 where nobody names one.
const REGION: &str = "us-east-1";

/// Why a client cannot be made: in words that hold no secret.
pub(super) type Fault = String;

fn fault(fault: &object_store::Error) -> Fault {
    // Of what the library says the deepest is the plainest; of answers there are none yet.
    let mut source: &(dyn std::error::Error + 'static) = fault;
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: RETRY_PAUSE, base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT }
}

fn options(objects: &Objects) -> Result<ClientOptions, Fault> {
    // What a request may take is bounded where it is made, as a copy may take minutes and a part may not.
    let mut options = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(objects.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://")));
    if let Some(ca) = &objects.ca {
        let pem = read(ca).map_err(|fault| fault.to_string())?;
        let certificates = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|_| format!("{}: it holds no certificates", ca.display()))?;
        options = certificates.into_iter().fold(options, ClientOptions::with_root_certificate);
    }
    Ok(options)
}

/// Makes the client of a place. Nobody is asked anything yet.
pub(super) fn connect(objects: &Objects) -> Result<Client, Fault> {
    match objects.kind {
        Kind::S3 => s3(objects),
        Kind::Google => google(objects),
        Kind::Azure => azure(objects),
    }
}

/// The region: as configured, else as the environment has it.
fn region(objects: &Objects) -> String {
    let environment = || ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|name| std::env::var(name).ok());
    objects.region.clone().or_else(environment).filter(|region| !region.is_empty()).unwrap_or_else(|| REGION.to_owned())
}

fn s3(objects: &Objects) -> Result<Client, Fault> {
    let (options, region) = (options(objects)?, region(objects));
    let (files, provided) = (objects.credentials.clone(), options.clone());
    let of_bucket = objects.bucket.clone();
    let of_region = region.clone();
    let credentials = Renewed::new(files.all().map(Path::to_owned).collect(), move || {
        let environment = AmazonS3Builder::from_env().with_bucket_name(&of_bucket).with_region(&of_region);
        let mut builder = environment.with_client_options(provided.clone()).with_retry(retry());
        if let (Some(key), Some(secret)) = (&files.access_key, &files.secret_key) {
            builder = AmazonS3Builder::new().with_bucket_name(&of_bucket).with_access_key_id(read(key)?).with_secret_access_key(read(secret)?);
            // Whoever writes the files may turn to keys that have no token, and leave that file empty.
            let token = files.session_token.as_deref().map(read_or_none).transpose()?.flatten();
            if let Some(token) = token {
                builder = builder.with_token(token);
            }
        }
        Ok(Arc::clone(builder.build()?.credentials()))
    });
    let renewed = Arc::clone(&credentials);
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&objects.bucket)
        .with_region(region)
        .with_credentials(credentials)
        .with_client_options(options)
        .with_retry(retry())
        .with_http_connector(Bounded::default())
        .with_virtual_hosted_style_request(objects.virtual_hosted)
        // One request an object is part of what every store speaks.
        .with_disable_bulk_delete(true);
    if let Some(endpoint) = &objects.endpoint {
        builder = builder.with_endpoint(hosted(endpoint, objects));
    }
    builder = match objects.conditions {
        Conditions::Kept => builder
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_copy_if_not_exists(S3CopyIfNotExists::Header("if-none-match".to_owned(), "*".to_owned())),
        Conditions::Lacking => builder.with_conditional_put(S3ConditionalPut::Disabled),
    };
    builder = match objects.checksum {
        Checksum::None => builder,
        Checksum::Sha256 => builder.with_checksum_algorithm(S3Checksum::SHA256),
        Checksum::Crc64Nvme => builder.with_checksum_algorithm(S3Checksum::CRC64NVME),
    };
    let built = builder.build().map_err(|error| fault(&error))?;
    Ok(Client { objects: Arc::new(built), renew: Box::new(move || renewed.renew()) })
}

/// The endpoint as the library wants it: with the bucket before its host where that is the style.
fn hosted(endpoint: &str, objects: &Objects) -> String {
    match endpoint.split_once("://") {
        Some((scheme, host)) if objects.virtual_hosted => format!("{scheme}://{}.{host}", objects.bucket),
        _ => endpoint.to_owned(),
    }
}

fn google(objects: &Objects) -> Result<Client, Fault> {
    let options = options(objects)?;
    let builder = {
        let (file, bucket, options) = (objects.credentials.service_account.clone(), objects.bucket.clone(), options.clone());
        move || {
            let builder = match &file {
                // Read here, so that what is wrong with it is told without its content.
                Some(file) => GoogleCloudStorageBuilder::new().with_service_account_key(read(file)?),
                None => GoogleCloudStorageBuilder::from_env(),
            };
            builder.with_bucket_name(&bucket).with_client_options(options.clone()).with_retry(retry()).build()
        }
    };
    let files: Vec<_> = objects.credentials.all().map(Path::to_owned).collect();
    let signing = builder.clone();
    let credentials = Renewed::new(files.clone(), move || Ok(Arc::clone(builder()?.credentials())));
    let signing = Renewed::new(files, move || Ok(Arc::clone(signing()?.signing_credentials())));
    let renewed = (Arc::clone(&credentials), Arc::clone(&signing));
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&objects.bucket)
        .with_credentials(credentials)
        .with_signing_credentials(signing)
        .with_client_options(options)
        .with_retry(retry())
        .with_http_connector(Bounded::default());
    if let Some(endpoint) = &objects.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let built = builder.build().map_err(|error| fault(&error))?;
    let renew = move || {
        renewed.0.renew();
        renewed.1.renew();
    };
    Ok(Client { objects: Arc::new(built), renew: Box::new(renew) })
}

fn azure(objects: &Objects) -> Result<Client, Fault> {
    let options = options(objects)?;
    let account = match &objects.account {
        Some(account) => account.clone(),
        None => MicrosoftAzureBuilder::from_env()
            .get_config_value(&AzureConfigKey::AccountName)
            .ok_or("the account is named nowhere: set `account`, or AZURE_STORAGE_ACCOUNT_NAME")?,
    };
    let (files, provided, of_account, of_container) = (objects.credentials.clone(), options.clone(), account.clone(), objects.bucket.clone());
    let credentials = Renewed::new(files.all().map(Path::to_owned).collect(), move || {
        let builder = match (&files.access_key, &files.sas_token) {
            (Some(key), _) => MicrosoftAzureBuilder::new().with_access_key(read(key)?),
            (None, Some(token)) => MicrosoftAzureBuilder::new().with_config(AzureConfigKey::SasKey, read(token)?),
            (None, None) => MicrosoftAzureBuilder::from_env(),
        };
        let built = builder.with_account(&of_account).with_container_name(&of_container).with_client_options(provided.clone()).with_retry(retry()).build()?;
        Ok(Arc::clone(built.credentials()))
    });
    let renewed = Arc::clone(&credentials);
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(&objects.bucket)
        .with_credentials(credentials)
        .with_client_options(options)
        .with_retry(retry())
        .with_http_connector(Bounded::default());
    if let Some(endpoint) = &objects.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let built = builder.build().map_err(|error| fault(&error))?;
    Ok(Client { objects: Arc::new(built), renew: Box::new(move || renewed.renew()) })
}
