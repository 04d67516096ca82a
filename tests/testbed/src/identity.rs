//! Keys, tokens and kubeconfig files.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

/// Before the point of a P-256 public key: the rest of its SubjectPublicKeyInfo (RFC 5480).
const P256_INFO: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The key pair that signs service account tokens, as two PEM files.
pub(crate) fn write_signing_keys(private: &Path, public: &Path) -> Result<()> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
        .ok()
        .context("generate a key for service accounts")?;
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random)
            .ok()
            .context("read the key for service accounts")?;
    let info = [&P256_INFO, pair.public_key().as_ref()].concat();
    std::fs::write(private, pem("PRIVATE KEY", document.as_ref()))?;
    std::fs::write(public, pem("PUBLIC KEY", &info))?;
    Ok(())
}

pub(crate) fn random_token() -> Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .ok()
        .context("the system has no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The CA that kube-apiserver made for itself: the second certificate of the file.
pub(crate) fn authority(served: &str) -> Option<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let start = served.match_indices(BEGIN).nth(1)?.0;
    // It may be read while it is written.
    served
        .trim_end()
        .ends_with("-----END CERTIFICATE-----")
        .then(|| served[start..].to_owned())
}

pub(crate) fn kubeconfig(
    server: &str,
    authority: &str,
    user: &str,
    token: &str,
    namespace: &str,
) -> String {
    let authority = STANDARD.encode(authority);
    format!(
        "apiVersion: v1
kind: Config
current-context: testbed
clusters:
- name: testbed
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: {user}
  user:
    token: {token}
contexts:
- name: testbed
  context:
    cluster: testbed
    user: {user}
    namespace: {namespace}
"
    )
}

fn pem(label: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for start in (0..text.len()).step_by(64) {
        pem.push_str(&text[start..text.len().min(start + 64)]);
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
