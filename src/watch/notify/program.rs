//! A program that gets messages on its standard input. No shell is involved.

use std::io::ErrorKind;
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, Command};
use tokio::time::timeout;

use super::courier::SendError;
use crate::alert::Notification;
use crate::apply::timer;
use crate::files::joined;
use crate::policy::meant::Exec;
use crate::report::clean;

/// So much of what it says on its standard error is quoted.
const QUOTE_MAX: usize = 200;
const ERROR_MAX: usize = 4096;
/// So long is heard what it has said before it ended.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What it gets.
pub(super) fn document(message: &Notification) -> Result<String, SendError> {
    serde_json::to_string(message)
        .map(|text| format!("{text}\n"))
        .map_err(|error| SendError::lasting(error.to_string()))
}

/// Runs it and waits for its end.
pub(super) async fn run(exec: &Exec, base: &Path, message: &Notification) -> Result<(), SendError> {
    let document = document(message)?;
    // Without a `/` it is looked for as a shell would.
    let program = if exec.program.contains('/') {
        joined(base, &exec.program)
    } else {
        exec.program.clone().into()
    };
    let mut child = Command::new(&program)
        .args(&exec.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            SendError::passing(format!("cannot run {}: {error}", program.display()))
        })?;
    let (input, said) = (child.stdin.take(), child.stderr.take());
    let write = async move {
        let Some(mut input) = input else { return Ok(()) };
        match input.write_all(document.as_bytes()).await {
            // It may end without reading anything.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    };
    let mut heard = Vec::new();
    let whole = async {
        let mut talk = pin!(async { tokio::join!(write, listen(said, &mut heard)).0 });
        let mut written = None;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                ended = &mut talk, if written.is_none() => written = Some(ended),
            }
        };
        // What it has left behind may hold its ends of the pipes for as long as it likes.
        if written.is_none() {
            written = timeout(LAST_WORD, talk).await.ok();
        }
        (written.unwrap_or(Ok(())), status)
    };
    let Ok((written, status)) = timeout(timer(exec.timeout), whole).await else {
        let message = format!("{} had not ended after {}", program.display(), exec.timeout);
        return Err(SendError::passing(message));
    };
    let failed = |error: std::io::Error| {
        SendError::passing(format!("{} could not be told: {error}", program.display()))
    };
    written.map_err(failed)?;
    let status = status.map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let said = clean(String::from_utf8_lossy(&heard).trim());
    let said: String = said.chars().take(QUOTE_MAX).collect();
    let said = if said.is_empty() { said } else { format!(": {said}") };
    Err(SendError::passing(format!("{} ended with {status}{said}", program.display())))
}

/// Hears what is said, the beginning of it; the rest is read as well, so that it can go on.
async fn listen(said: Option<ChildStderr>, heard: &mut Vec<u8>) {
    let Some(mut said) = said else { return };
    let mut buffer = [0; 1024];
    while let Ok(count) = said.read(&mut buffer).await
        && count > 0
    {
        let room = ERROR_MAX.saturating_sub(heard.len()).min(count);
        heard.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
}
