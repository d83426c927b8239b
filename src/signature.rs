//! Who has signed a file: ed25519 keys in the format of OpenSSH.
//!
//! A signature is what `ssh-keygen -Y sign -n NAMESPACE` writes, and who may sign stands in a file as
//! `ssh-keygen -Y verify -f` takes it: so keys in agents and on tokens, which this program does not
//! reach, sign with `ssh-keygen` itself. Other kinds of keys are refused.

use std::path::{Path, PathBuf};

use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

/// What a signature over a saved plan is for.
pub const PLAN: &str = "stillframe-plan";
/// What a signature over an approval is for.
pub const APPROVAL: &str = "stillframe-approval";

/// Why something is not signed, or not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it is not.
        why: String,
    },
    /// The signature does not fit.
    #[error("the signature {0}")]
    Wrong(String),
}

/// Signs a message with the private key in a file.
pub fn sign(key: &Path, namespace: &str, message: &[u8]) -> Result<String, SignatureError> {
    let text = read(key)?;
    let wrong = |why: String| SignatureError::File { path: key.to_owned(), why };
    let private = PrivateKey::from_openssh(&text)
        .map_err(|error| wrong(format!("it is not a private key of OpenSSH: {error}")))?;
    if private.is_encrypted() {
        return Err(wrong(format!(
            "the key has a passphrase; sign with `ssh-keygen -Y sign -n {namespace} -f {} FILE`",
            key.display()
        )));
    }
    if private.algorithm() != Algorithm::Ed25519 {
        return Err(wrong(format!("{} is not ed25519", private.algorithm())));
    }
    let signed = private.sign(namespace, HashAlg::Sha512, message);
    let pem = signed.and_then(|signature| signature.to_pem(LineEnding::LF));
    pem.map_err(|error| wrong(error.to_string()))
}

/// Who may sign.
#[derive(Debug, Clone)]
pub struct Signers {
    file: PathBuf,
    all: Vec<Signer>,
}

/// Somebody who may sign.
#[derive(Debug, Clone)]
struct Signer {
    name: String,
    /// For what; for everything where there are none.
    namespaces: Vec<String>,
    key: PublicKey,
}

impl Signers {
    /// Reads a file as `ssh-keygen` takes it: on each line who it is, options, and the key.
    pub fn read(file: &Path) -> Result<Self, SignatureError> {
        let mut all = Vec::new();
        for (index, line) in read(file)?.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let signer = Signer::parse(line).map_err(|why| {
                let why = format!("line {}: {why}", index + 1);
                SignatureError::File { path: file.to_owned(), why }
            })?;
            all.push(signer);
        }
        if all.is_empty() {
            let why = "it names nobody; write lines like `name@example.org ssh-ed25519 AAAA…`";
            return Err(SignatureError::File { path: file.to_owned(), why: why.to_owned() });
        }
        Ok(Self { file: file.to_owned(), all })
    }

    /// Who has signed a message, if they may.
    pub fn verify(
        &self,
        namespace: &str,
        message: &[u8],
        signature: &str,
    ) -> Result<String, SignatureError> {
        let wrong = |why: String| SignatureError::Wrong(why);
        let signature = SshSig::from_pem(signature)
            .map_err(|error| wrong(format!("is none of OpenSSH: {error}")))?;
        if signature.namespace() != namespace {
            return Err(wrong(format!(
                "is for `{}` and not for `{namespace}`",
                signature.namespace().escape_debug()
            )));
        }
        let known = self.all.iter().find(|signer| signer.key.key_data() == signature.public_key());
        let Some(signer) = known else {
            return Err(wrong(format!("is of a key that {} does not name", self.file.display())));
        };
        if !signer.namespaces.is_empty() && !signer.namespaces.iter().any(|one| one == namespace) {
            return Err(wrong(format!("is of {}, who may not sign for {namespace}", signer.name)));
        }
        signer
            .key
            .verify(namespace, message, &signature)
            .map_err(|_| wrong("does not fit: what was signed is something else".to_owned()))?;
        Ok(signer.name.clone())
    }
}

impl Signer {
    fn parse(line: &str) -> Result<Self, String> {
        let form = || "write it like `name@example.org ssh-ed25519 AAAA…`".to_owned();
        let (name, rest) = line.split_once(char::is_whitespace).ok_or_else(form)?;
        let rest = rest.trim_start();
        let (options, key) = match rest.find("ssh-ed25519 ") {
            Some(0) => ("", rest),
            Some(at) => (rest[..at].trim_end(), &rest[at..]),
            None => return Err(format!("there is no ed25519 key; {}", form())),
        };
        let mut namespaces = Vec::new();
        for option in options.split_whitespace() {
            let listed = option
                .strip_prefix("namespaces=\"")
                .and_then(|listed| listed.strip_suffix('"'))
                .ok_or_else(|| format!("the option `{option}` is not known here"))?;
            namespaces.extend(listed.split(',').map(str::to_owned));
        }
        let key = PublicKey::from_openssh(key.trim_end())
            .map_err(|error| format!("the key cannot be read: {error}"))?;
        Ok(Self { name: name.to_owned(), namespaces, key })
    }
}

fn read(path: &Path) -> Result<String, SignatureError> {
    std::fs::read_to_string(path)
        .map_err(|source| SignatureError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ssh_key::private::{Ed25519Keypair, KeypairData};
    use tempfile::TempDir;

    use super::*;

    /// A directory with the keys of two people and a file that names the first.
    fn keys() -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, seed) in [("anna", [7; 32]), ("bert", [8; 32])] {
            let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
            let key = PrivateKey::new(pair, name).unwrap();
            let private = key.to_openssh(LineEnding::LF).unwrap();
            fs::write(directory.path().join(name), private.as_bytes()).unwrap();
            let public = key.public_key().to_openssh().unwrap();
            fs::write(directory.path().join(format!("{name}.pub")), public).unwrap();
        }
        let public = fs::read_to_string(directory.path().join("anna.pub")).unwrap();
        let text = format!("# who may\n\nanna@example.org namespaces=\"{PLAN}\" {public}\n");
        fs::write(directory.path().join("signers"), text).unwrap();
        directory
    }

    #[test]
    fn who_may_sign_is_known_and_nobody_else() {
        let keys = keys();
        let at = |name: &str| keys.path().join(name);
        let signers = Signers::read(&at("signers")).unwrap();
        let signature = sign(&at("anna"), PLAN, b"a plan").unwrap();
        assert_eq!(signers.verify(PLAN, b"a plan", &signature).unwrap(), "anna@example.org");
        let why = |namespace: &str, message: &[u8], signature: &str| {
            signers.verify(namespace, message, signature).unwrap_err().to_string()
        };
        assert!(why(PLAN, b"another plan", &signature).contains("does not fit"));
        assert!(why(APPROVAL, b"a plan", &signature).contains("is for `stillframe-plan`"));
        let other = sign(&at("bert"), PLAN, b"a plan").unwrap();
        assert!(why(PLAN, b"a plan", &other).contains("does not name"));
        let other = sign(&at("anna"), APPROVAL, b"a plan").unwrap();
        assert!(why(APPROVAL, b"a plan", &other).contains("may not sign for"));
        assert!(why(PLAN, b"a plan", "nothing").contains("none of OpenSSH"));
    }

    #[test]
    fn what_is_no_key_is_said() {
        let keys = keys();
        let at = |name: &str| keys.path().join(name);
        assert!(sign(&at("anna.pub"), PLAN, b"x").unwrap_err().to_string().contains("private key"));
        assert!(sign(&at("nobody"), PLAN, b"x").unwrap_err().to_string().contains("cannot read"));
        for (text, why) in [
            ("", "names nobody"),
            ("anna@example.org", "write it like"),
            ("anna@example.org ssh-rsa AAAA", "no ed25519 key"),
            ("anna@example.org ssh-ed25519 AAAA", "cannot be read"),
            ("anna@example.org cert-authority ssh-ed25519 AAAA", "not known here"),
        ] {
            fs::write(at("wrong"), text).unwrap();
            let error = Signers::read(&at("wrong")).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
