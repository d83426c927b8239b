//! Disks that an image is made of and that lie elsewhere: fetched by their URL from this machine alone,
//! into a file that is gone as soon as the image is made.
//!
//! A server that fetched from anywhere would reach, for whoever speaks to it, what only it can reach. So
//! it takes loopback addresses, follows no redirection, and fetches nothing once others than this machine
//! can speak to it. A file that refers to another one is refused: that would be a file of this machine.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, StatusCode, Url, redirect};

use super::answer::{Code, Refusal};
use crate::engine::local::instance::{
    DiskFormat, DiskSpec, InstanceDocument, InstanceKind, InstanceMetadata, InstanceSpec,
    LocalInstance,
};
use crate::inventory::ImageSource;
use crate::name::SourceId;
use crate::policy::written::ApiVersion;

/// The largest file that is fetched, in bytes.
pub const LENGTH_MAX: u64 = 64 << 30;
/// How long the other side may take to be reached, and to send something more.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// What the machine is called that the disk is said to be of, and the disk.
const MACHINE: &str = "imported";
pub const DEVICE: &str = "disk";
/// How files of other formats begin.
const QCOW2: &[u8] = b"QFI\xfb";
const VMDK: [&[u8]; 3] = [b"KDMV", b"COWD", b"# Disk DescriptorFile"];

/// What an image is said to be of whose disk was fetched: of no instance that there is.
pub fn source() -> Result<ImageSource, Refusal> {
    let id = SourceId::parse(MACHINE);
    let id = id.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    Ok(ImageSource { id, name: MACHINE.to_owned() })
}

/// A disk to be fetched.
#[derive(Clone)]
pub struct Fetch(Url);

impl fmt::Debug for Fetch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown())
    }
}

impl Fetch {
    /// Reads a URL of this machine.
    pub fn read(uri: &str) -> Result<Self, Refusal> {
        let elsewhere = || {
            Refusal::not_done(
                "imports from elsewhere than http://127.0.0.1 and http://[::1]: it reaches no other machine",
            )
        };
        let url = Url::parse(uri).map_err(|_| Refusal::invalid("uri", "it is no URL"))?;
        // A name could lead anywhere.
        let address = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let is_here =
            address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let is_bare = url.username().is_empty() && url.password().is_none();
        if url.scheme() != "http" || !is_here || !is_bare {
            return Err(elsewhere());
        }
        Ok(Self(url))
    }

    /// What of it is no secret.
    fn shown(&self) -> String {
        let mut url = self.0.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.to_string()
    }

    /// Fetches it into a file of a directory. `is_stopped` says whether to give up.
    pub async fn bring(
        &self,
        directory: &Path,
        id: &str,
        length_max: u64,
        is_stopped: impl Fn() -> bool + Send,
    ) -> Result<Fetched, Refusal> {
        let failed = |why: &dyn fmt::Display| {
            let message = format!("the disk at {} cannot be had: {why}", self.shown());
            Refusal::new(Code::InvalidArgument, message)
        };
        let fetched = Fetched { path: directory.join(id) };
        fs::create_dir_all(directory).map_err(|error| failed(&error))?;
        let mut file = File::create(&fetched.path).map_err(|error| failed(&error))?;
        let unanswered = |error: reqwest::Error| failed(&error.without_url());
        let client = client().map_err(unanswered)?;
        let mut answer = client.get(self.0.clone()).send().await.map_err(unanswered)?;
        if answer.status() != StatusCode::OK {
            return Err(failed(&format!("HTTP {}", answer.status().as_u16())));
        }
        let too_long = || failed(&format!("it is longer than {length_max} bytes"));
        let mut length = 0;
        while let Some(part) = answer.chunk().await.map_err(unanswered)? {
            length += part.len() as u64;
            if length > length_max {
                return Err(too_long());
            }
            if is_stopped() {
                return Err(Refusal::stopped());
            }
            file.write_all(&part).map_err(|error| failed(&error))?;
        }
        if length == 0 {
            return Err(failed(&"it is empty"));
        }
        Ok(fetched)
    }
}

fn client() -> Result<Client, reqwest::Error> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIME_MAX)
        .read_timeout(SILENCE_MAX)
        .build()
}

/// A file that was fetched, as long as it is needed.
#[derive(Debug)]
pub struct Fetched {
    path: PathBuf,
}

impl Fetched {
    /// A machine that has it as its disk.
    pub fn machine(&self) -> Result<LocalInstance, Refusal> {
        let refused = |why: &str| Err(Refusal::new(Code::InvalidArgument, why));
        let mut begin = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(64).read_to_end(&mut begin));
        read.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        if VMDK.iter().any(|mark| begin.starts_with(mark)) {
            return refused("the disk is a VMDK file, and this server reads QCOW2 and RAW");
        }
        let is_qcow2 = begin.starts_with(QCOW2);
        if is_qcow2 && begin.get(8..16).is_none_or(|at| at.iter().any(|byte| *byte != 0)) {
            return refused("the disk is a QCOW2 file that is based on another file: flatten it");
        }
        let disk = DiskSpec {
            device_name: DEVICE.to_owned(),
            path: self.path.display().to_string(),
            format: Some(if is_qcow2 { DiskFormat::Qcow2 } else { DiskFormat::Raw }),
            boot: true,
            ..DiskSpec::default()
        };
        Ok(LocalInstance {
            id: source()?.id,
            document: InstanceDocument {
                api_version: ApiVersion::V1,
                kind: InstanceKind::Instance,
                metadata: InstanceMetadata {
                    name: MACHINE.to_owned(),
                    id: None,
                    labels: std::collections::BTreeMap::new(),
                },
                spec: InstanceSpec { disks: vec![disk], ..InstanceSpec::default() },
            },
            directory: PathBuf::new(),
            file: PathBuf::new(),
        })
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("{} stays: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    /// Answers each request with this.
    fn serve(answer: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                    line.clear();
                }
                let _ = stream.write_all(&answer);
            }
        });
        format!("http://{address}/b/disk?X-Amz-Signature=secretsecret")
    }

    fn ok(body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    async fn bring(answer: Vec<u8>, most: u64) -> Result<LocalInstance, Refusal> {
        let directory = tempfile::tempdir().unwrap();
        let fetch = Fetch::read(&serve(answer)).unwrap();
        let fetched = fetch.bring(directory.path(), "1", most, || false).await;
        let machine = fetched.and_then(|fetched| fetched.machine());
        // Whatever came of it, nothing is left.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        if let Err(refusal) = &machine {
            assert!(!refusal.message.contains("secret"), "{}", refusal.message);
        }
        machine
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        for uri in [
            "https://storage.example.net/b/x",
            "http://storage.example.net/b/x",
            "http://localhost:1/x",
            "http://127.0.0.1.example.net/x",
            "http://10.0.0.1/x",
            "http://169.254.169.254/computeMetadata",
            "http://0:1/x",
            "http://[::ffff:10.0.0.1]/x",
            "https://127.0.0.1/x",
            "http://user:word@127.0.0.1/x",
            "file:///etc/passwd",
        ] {
            assert_eq!(Fetch::read(uri).unwrap_err().code, Code::Unimplemented, "{uri}");
        }
        assert_eq!(Fetch::read("disk.raw").unwrap_err().code, Code::InvalidArgument);
        for uri in ["http://127.0.0.1:9000/b/x?s=1", "http://[::1]/x"] {
            assert!(Fetch::read(uri).is_ok(), "{uri}");
        }
    }

    #[tokio::test]
    async fn what_is_fetched_has_a_limit_and_is_a_disk_of_its_own() {
        let disk = |machine: LocalInstance| machine.document.spec.disks[0].format;
        let raw = bring(ok(&[7; 4096]), 4096).await.unwrap();
        assert_eq!(disk(raw), Some(DiskFormat::Raw));
        let header = [QCOW2, &[0, 0, 0, 3], &[0; 100]].concat();
        assert_eq!(disk(bring(ok(&header), 4096).await.unwrap()), Some(DiskFormat::Qcow2));
        let based = [QCOW2, &[0, 0, 0, 3], &[0, 0, 0, 0, 0, 0, 2, 0], &[0; 100]].concat();
        let moved =
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        for (answer, why) in [
            (ok(&[7; 4097]), "longer than 4096 bytes"),
            (ok(&[]), "it is empty"),
            (ok(b"KDMV...."), "VMDK"),
            (ok(&based), "based on another file"),
            (ok(&based[..12]), "based on another file"),
            (moved.to_vec(), "HTTP 302"),
            (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_vec(), "HTTP 403"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_vec(), "cannot be had"),
        ] {
            let refusal = bring(answer, 4096).await.unwrap_err();
            assert!(refusal.message.contains(why), "{}", refusal.message);
        }
    }
}
