//! Saved plans: written, read, signed, approved.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::{Console, Exit, Global, parse_instant, setup};
use crate::plan::guard::approval::APPROVAL_VERSION;
use crate::plan::guard::{Approval, Class, SHORT_ID};
use crate::report::{clean, count};
use crate::review::{SAVED_VERSION, Saved};
use crate::signature::{APPROVAL, PLAN, Signers, sign};

/// What is put behind the name of a file for its signature.
const SIGNATURE: &str = "sig";

/// Writes a document into a file, and its signature beside it.
fn write(
    document: &impl serde::Serialize,
    file: &Path,
    key: Option<&Path>,
    namespace: &str,
) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    // An old signature must not stand beside a new document.
    let signature = beside(file, SIGNATURE);
    match fs::remove_file(&signature) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot replace {}", signature.display()));
        }
    }
    fs::write(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    if let Some(key) = key {
        let signed = sign(key, namespace, &text)?;
        fs::write(&signature, signed)
            .with_context(|| format!("cannot write {}", signature.display()))?;
    }
    Ok(())
}

/// The file of that name with more behind it.
fn beside(file: &Path, more: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(more);
    PathBuf::from(name)
}

/// Saves a plan.
pub(super) fn save(saved: &Saved, file: &Path, key: Option<&Path>) -> anyhow::Result<()> {
    write(saved, file, key, PLAN)
}

/// Reads a document of a version that this program knows, and who has signed it where `signers` are
/// given.
fn read<T: DeserializeOwned>(
    file: &Path,
    what: &str,
    version: &str,
    namespace: &str,
    signers: Option<&Signers>,
) -> anyhow::Result<(T, Option<String>)> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let by = match signers {
        None => None,
        Some(signers) => {
            let path = beside(file, SIGNATURE);
            let signature = fs::read_to_string(&path).with_context(|| {
                format!("{} is not signed: cannot read {}", file.display(), path.display())
            })?;
            let by = signers
                .verify(namespace, &text, &signature)
                .with_context(|| format!("{}", path.display()))?;
            Some(by)
        }
    };
    let document: serde_json::Value = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not {what}", file.display()))?;
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    let found = document["format_version"].as_str().unwrap_or_default();
    if major(found) != major(version) {
        bail!(
            "{} is not {what} that this program reads: its format version is `{}`, not {version}",
            file.display(),
            clean(found)
        );
    }
    let document = serde_json::from_value(document)
        .with_context(|| format!("{} is not {what}", file.display()))?;
    Ok((document, by))
}

/// Reads a saved plan.
pub(super) fn load(
    file: &Path,
    signers: Option<&Signers>,
) -> anyhow::Result<(Saved, Option<String>)> {
    let what = "a saved plan (`stillframe plan --out FILE` writes one)";
    read(file, what, SAVED_VERSION, PLAN, signers)
}

/// Reads the approvals that lie beside a saved plan, and those that are named.
pub(super) fn approvals(
    plan: Option<&Path>,
    named: &[PathBuf],
    signers: Option<&Signers>,
) -> anyhow::Result<Vec<Approval>> {
    let own = plan.map(|plan| Class::ALL.map(|class| approval_file(plan, class)));
    let own = own.into_iter().flatten().filter(|file| file.exists());
    own.chain(named.iter().cloned())
        .map(|file| {
            let what = "an approval (`stillframe approve` writes one)";
            let (mut approval, by): (Approval, _) =
                read(&file, what, APPROVAL_VERSION, APPROVAL, signers)?;
            // Who has signed it is who approved it, whatever it says.
            approval.by = by.or(approval.by);
            Ok(approval)
        })
        .collect()
}

fn approval_file(plan: &Path, class: Class) -> PathBuf {
    beside(plan, &format!("{}.approval", class.word()))
}

/// Whose signatures are asked for.
#[derive(Debug, Args)]
pub(super) struct Signed {
    /// Carry out nothing, and let no approval count, that is not signed by one of --signers
    #[arg(long, requires = "signers", requires = "plan")]
    require_signature: bool,
    /// Who may sign, as `ssh-keygen -Y verify` takes it
    #[arg(long, value_name = "FILE", requires = "require_signature")]
    signers: Option<PathBuf>,
}

impl Signed {
    /// Who may sign, where signatures are asked for.
    pub(super) fn signers(&self) -> anyhow::Result<Option<Signers>> {
        let file = self.signers.as_deref().filter(|_| self.require_signature);
        Ok(file.map(Signers::read).transpose()?)
    }
}

/// Approve deletes of a class in a saved plan.
#[derive(Debug, Args)]
pub struct Approve {
    /// The saved plan
    plan: PathBuf,
    /// Which deletes
    #[arg(long = "class", value_name = "CLASS", required = true, value_parser = Class::parse)]
    classes: Vec<Class>,
    /// Who approves
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Sign the approval with this private key
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    /// As if it were this instant
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    now: Option<Timestamp>,
}

impl Approve {
    pub(super) fn run(&self, _: &Global, console: &Console) -> anyhow::Result<Exit> {
        let (saved, _) = load(&self.plan, None)?;
        let now = setup::clock(self.now).now();
        if now > saved.valid_until {
            bail!("{} was valid until {}; plan again", self.plan.display(), saved.valid_until);
        }
        for class in &self.classes {
            let approval = Approval::of(&saved.plan, *class, self.by.clone(), now);
            if approval.items.is_empty() {
                bail!("the plan deletes nothing of the class {}", class.word());
            }
            let file = approval_file(&self.plan, *class);
            write(&approval, &file, self.sign.as_deref(), APPROVAL)?;
            let short = saved.plan.id.get(..SHORT_ID).unwrap_or(&saved.plan.id);
            let images = count(approval.items.len(), "delete");
            console.print(&format!(
                "Approved: {images} of the class {} of plan {short}, in {}\n",
                class.word(),
                file.display()
            ));
        }
        Ok(Exit::Success)
    }
}
