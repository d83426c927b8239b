//! The token that opens the endpoints, as its file says it now.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as Known, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;

/// A token that can be guessed is none.
const LEAST: usize = 16;
/// So long a file that does not answer is waited for.
const SOON: Duration = Duration::from_secs(1);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token in {}: {source}", file.display())]
    Unread {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It could be guessed.
    #[error("the token in {} is shorter than {LEAST} characters", file.display())]
    Short {
        /// The file.
        file: PathBuf,
    },
}

/// A token in a file. Who renews it writes the file anew: it is read for each request, and what was read
/// last counts where that cannot be.
pub struct Token {
    file: PathBuf,
    known: Known<String>,
    /// One reads at a time: where that does not return, no more threads wait than one.
    turn: Arc<Mutex<()>>,
    /// Why the file could not be read last, as it was said.
    said: Known<String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Token {
    /// The token in a file.
    pub fn open(file: PathBuf) -> Result<Self, TokenError> {
        let known = Known::new(read(&file)?);
        Ok(Self { file, known, turn: Arc::default(), said: Known::default() })
    }

    /// The token as it is now.
    pub(super) async fn now(&self) -> String {
        let reading = async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let file = self.file.clone();
            let read = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                read(&file)
            });
            read.await.ok()
        };
        let read = tokio::time::timeout(SOON, reading).await.ok().flatten();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Some(Ok(token)) => {
                *known = token;
                self.say(String::new());
            }
            Some(Err(error)) => self.say(error.to_string()),
            None => self.say(format!("{} does not answer", self.file.display())),
        }
        known.clone()
    }

    /// Says once why the token of before counts.
    fn say(&self, why: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !why.is_empty() && *said != why {
            tracing::warn!("the token that was read before counts on: {why}");
        }
        *said = why;
    }
}

fn read(file: &Path) -> Result<String, TokenError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| TokenError::Unread { file: file.to_owned(), source })?;
    let token = text.trim();
    if token.len() < LEAST {
        return Err(TokenError::Short { file: file.to_owned() });
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_what_its_file_says_and_stays_where_that_says_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        assert!(matches!(Token::open(file.clone()), Err(TokenError::Unread { .. })));
        write("too short\n");
        assert!(matches!(Token::open(file.clone()), Err(TokenError::Short { .. })));
        write("the first of several\n");
        let token = Token::open(file.clone()).unwrap();
        assert_eq!(token.now().await, "the first of several");
        write("another one, renewed\n");
        assert_eq!(token.now().await, "another one, renewed");
        write("");
        assert_eq!(token.now().await, "another one, renewed");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(token.now().await, "another one, renewed");
        assert!(!format!("{token:?}").contains("renewed"));
    }
}
