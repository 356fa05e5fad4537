//! A promotion without the places: `dtm site promote --accept-split`, `dtm approval sign`.
//!
//! ```text
//!  dtm site promote b --accept-split --request-file F   F is not there: made, of what a node of b says
//!  dtm approval sign F                                  two different people, each with their own key
//!  dtm site promote b --accept-split --request-file F   sent to every node of b that answers
//! ```
//! The file holds no secret. What is signed are the bytes of `dtm_types::split`.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dtm_client::Endpoint;
use dtm_proto::admin as wire;
use dtm_types::split::{SPLIT_SIGNATURES, SplitRequest, split_life};
use dtm_types::{ClusterId, Incarnation, NodeId};
use rcgen::{KeyPair, SigningKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::promote::{ANSWER_WITHIN, BEGUN_WITHIN, PAUSE, at_site, context, told_by};
use crate::args::{Globals, PromoteArgs};
use crate::{Exit, Failure, Printer, Remote, confirm, write_new};

/// What the file says that it is.
const FORM: &str = "dtm-site-split-1";
/// A request holds so long.
const VALID_US: i64 = 4 * 3_600_000_000;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitFile {
    form: String,
    cluster: String,
    life: u64,
    next: u64,
    site: String,
    coordinator: String,
    made_us: i64,
    expires_us: i64,
    reason: String,
    #[serde(default)]
    signatures: Vec<Signed>,
}

/// Of one person, base64.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    certificate: String,
    signature: String,
}

/// Makes the file where it is not there, else has the site go over by it.
pub(super) async fn promote(
    globals: &Globals,
    printer: &Printer<'_>,
    args: &PromoteArgs,
    file: &Path,
) -> Result<(), Failure> {
    let (endpoint, _) = Remote::endpoint(globals)?;
    if file.exists() {
        return carry_out(globals, printer, &endpoint, (&args.site, file)).await;
    }
    let site = args.site.as_str();
    let Some((_, told)) = at_site(&endpoint, site).await else {
        return Err(Failure::usage("cli.promote_nobody", &[("site", site)]));
    };
    let made_us = now_us();
    let request = SplitRequest {
        cluster: ClusterId::from_slice(&told.cluster_id).unwrap_or_default(),
        life: Incarnation(told.life),
        next: split_life(Incarnation(told.life.max(told.incarnation)), made_us),
        site: site.to_owned(),
        coordinator: NodeId::from_slice(&told.node).unwrap_or_default(),
        made_us,
        expires_us: made_us + VALID_US,
        reason: globals.reason.trim().to_owned(),
    };
    request.check(made_us).map_err(|key| Failure::usage(key, &[]))?;
    write_new(file, &text(&SplitFile::of(&request)), 0o644).map_err(Failure::file(file))?;
    let name = file.display().to_string();
    let document = json!({ "file": name, "site": site, "life": request.next.0 });
    printer.done("cli.split_made", &[("file", &name), ("site", site)], &document);
    Ok(())
}

/// Adds the signature of the context's person.
pub(super) fn sign(globals: &Globals, printer: &Printer<'_>, file: &Path) -> Result<(), Failure> {
    let (_, context) = Remote::endpoint(globals)?;
    let (Some(certificate), Some(key)) = (&context.certificate, &context.key) else {
        return Err(Failure::usage("cli.split_no_key", &[]));
    };
    let mut held = SplitFile::read(file)?;
    let request = held.request(file)?;
    request.check(now_us()).map_err(|key| Failure::usage(key, &[]))?;
    if !printer.is_json() {
        printer.raw(&request.signed_text());
    }
    confirm(globals, "cli.confirm_split_sign", &[("site", &*request.site)])?;
    let malformed = |path: &Path| {
        let path = path.display().to_string();
        move |_| Failure::usage("cli.split_pem", &[("path", &*path)])
    };
    let certificate_der =
        CertificateDer::from_pem_file(certificate).map_err(malformed(certificate))?;
    let pem = Zeroizing::new(std::fs::read_to_string(key).map_err(Failure::file(key))?);
    let signature = KeyPair::from_pem(&pem)?.sign(request.signed_text().as_bytes())?;
    let own = STANDARD.encode(&certificate_der);
    held.signatures.retain(|known| known.certificate != own);
    held.signatures.push(Signed { certificate: own, signature: STANDARD.encode(signature) });
    let next = file.with_extension(format!("new.{}", std::process::id()));
    write_new(&next, &text(&held), 0o644).map_err(Failure::file(&next))?;
    std::fs::rename(&next, file).map_err(Failure::file(file))?;
    let (count, name) = (held.signatures.len().to_string(), file.display().to_string());
    let document = json!({ "file": name, "signatures": held.signatures.len() });
    printer.done("cli.split_signed", &[("file", &name), ("count", &count)], &document);
    Ok(())
}

/// Every node of the site that answers is told. Returns when the site acknowledges.
async fn carry_out(
    globals: &Globals,
    printer: &Printer<'_>,
    endpoint: &Endpoint,
    (site, file): (&str, &Path),
) -> Result<(), Failure> {
    let held = SplitFile::read(file)?;
    let request = held.request(file)?;
    if request.site != site {
        return Err(Failure::usage("cli.split_site", &[("site", &*request.site)]));
    }
    if held.signatures.len() < SPLIT_SIGNATURES {
        let count = held.signatures.len().to_string();
        return Err(Failure::usage("cli.split_unsigned", &[("count", &*count)]));
    }
    let split = held.to_wire(&request, file)?;
    confirm(globals, "cli.confirm_split", &[("site", site)])?;
    let begun = Instant::now();
    let (mut taken, mut refused) = (0, None);
    for address in endpoint.seeds() {
        let answer = tokio::time::timeout(ANSWER_WITHIN, told_by(endpoint, address)).await;
        let Ok(Some((mut client, told))) = answer else { continue };
        if told.site != site {
            continue;
        }
        if told.life == request.next.0 {
            taken += 1;
            continue;
        }
        let asked = wire::PromoteSiteRequest {
            context: Some(context(globals)),
            site: site.to_owned(),
            split: Some(split.clone()),
            ..wire::PromoteSiteRequest::default()
        };
        match client.promote_site(endpoint.request(asked)).await {
            Ok(_) => taken += 1,
            Err(status) => refused = Some(Failure::from(status)),
        }
    }
    if taken == 0 {
        let nobody = || Failure::usage("cli.promote_nobody", &[("site", site)]);
        return Err(refused.unwrap_or_else(nobody));
    }
    if !printer.is_json() {
        printer.say("cli.split_waits", &[("count", &*taken.to_string()), ("site", site)]);
    }
    begins(endpoint, printer, (site, request.next.0), begun).await
}

async fn begins(
    endpoint: &Endpoint,
    printer: &Printer<'_>,
    (site, life): (&str, u64),
    begun: Instant,
) -> Result<(), Failure> {
    while begun.elapsed() < BEGUN_WITHIN {
        if let Some((_, now)) = at_site(endpoint, site).await
            && now.life == life
            && now.may_acknowledge
        {
            let took: Duration = begun.elapsed();
            let (life, seconds) = (life.to_string(), format!("{:.1}", took.as_secs_f64()));
            let document = json!({ "site": site, "life": now.life,
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX) });
            let values = [("site", site), ("life", &*life), ("seconds", &*seconds)];
            printer.done("cli.split_begun", &values, &document);
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Failure::Verdict { key: "cli.promote_late", exit: Exit::Failed })
}

impl SplitFile {
    fn of(request: &SplitRequest) -> Self {
        Self {
            form: FORM.to_owned(),
            cluster: request.cluster.to_string(),
            life: request.life.0,
            next: request.next.0,
            site: request.site.clone(),
            coordinator: request.coordinator.to_string(),
            made_us: request.made_us,
            expires_us: request.expires_us,
            reason: request.reason.clone(),
            signatures: Vec::new(),
        }
    }

    fn read(file: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file).map_err(Failure::file(file))?;
        let held: Self = serde_json::from_str(&text).map_err(|_| malformed(file))?;
        if held.form == FORM { Ok(held) } else { Err(malformed(file)) }
    }

    fn request(&self, file: &Path) -> Result<SplitRequest, Failure> {
        let (cluster, coordinator) = (self.cluster.parse(), self.coordinator.parse());
        let (Ok(cluster), Ok(coordinator)) = (cluster, coordinator) else {
            return Err(malformed(file));
        };
        Ok(SplitRequest {
            cluster,
            life: Incarnation(self.life),
            next: Incarnation(self.next),
            site: self.site.clone(),
            coordinator,
            made_us: self.made_us,
            expires_us: self.expires_us,
            reason: self.reason.clone(),
        })
    }

    fn to_wire(&self, request: &SplitRequest, file: &Path) -> Result<wire::SplitRequest, Failure> {
        let bytes = |text: &str| STANDARD.decode(text).map_err(|_| malformed(file));
        let mut signatures = Vec::new();
        for signed in &self.signatures {
            let certificate = bytes(&signed.certificate)?.into();
            let signature = bytes(&signed.signature)?.into();
            signatures.push(wire::SplitSignature { certificate, signature });
        }
        Ok(wire::SplitRequest {
            cluster_id: request.cluster.0.to_vec().into(),
            life: request.life.0,
            next: request.next.0,
            site: request.site.clone(),
            coordinator: request.coordinator.0.to_vec().into(),
            made_us: request.made_us,
            expires_us: request.expires_us,
            reason: request.reason.clone(),
            signatures,
        })
    }
}

fn text(held: &SplitFile) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(held).expect("plain fields become JSON");
    text.push('\n');
    text.into_bytes()
}

fn malformed(file: &Path) -> Failure {
    Failure::usage("cli.split_file", &[("path", &*file.display().to_string())])
}

#[expect(clippy::disallowed_methods, reason = "a command line has the clock of its machine")]
fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_as_it_was_written_and_another_one_is_none() {
        let scratch = tempfile::tempdir().expect("a folder");
        let file = scratch.path().join("request.json");
        let request = SplitRequest {
            cluster: ClusterId([1; 16]),
            life: Incarnation(1),
            next: Incarnation(1_001),
            site: "b".to_owned(),
            coordinator: NodeId([2; 16]),
            made_us: 1,
            expires_us: 2,
            reason: "mất cả hai nơi".to_owned(),
        };
        let mut held = SplitFile::of(&request);
        let signed = || Signed { certificate: "AQI=".to_owned(), signature: "Aw==".to_owned() };
        held.signatures.push(signed());
        std::fs::write(&file, text(&held)).expect("written");
        let read = SplitFile::read(&file).expect("read");
        assert_eq!(read.request(&file).expect("whole"), request);
        let wire = read.to_wire(&request, &file).expect("whole");
        assert_eq!((&wire.signatures[0].certificate[..], wire.next), (&[1_u8, 2][..], 1_001));
        held.form = "else".to_owned();
        std::fs::write(&file, text(&held)).expect("written");
        assert!(SplitFile::read(&file).is_err());
        std::fs::write(&file, b"{}").expect("written");
        assert!(SplitFile::read(&file).is_err());
    }
}
