//! The socket on which the log filter is changed while the sidecar runs: one line in, one line out.
//!
//! ```text
//! log-level podwitness_proxy=debug,info   ->  ok
//! log-level =                             ->  error: log filter "=" cannot be read …
//! ```
//!
//! Invariant: it is a Unix socket in the private state volume, for our own user only, because the admin port changes
//! nothing; and nothing but the log filter can be changed.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use podwitness_runtime::telemetry::LogHandle;
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

/// Connections at a time; more wait.
const MAX_CONNECTIONS: usize = 4;
/// Bytes of a line; what follows is cut off and then wrong.
const MAX_LINE: u64 = 512;
/// Life of a connection.
const MAX_LIFE: Duration = Duration::from_secs(10);
const COMMAND: &str = "log-level ";

/// Changes the filter; an error is told to the caller.
pub type SetFilter = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The open socket.
pub struct LogSocket {
    listener: UnixListener,
    set: SetFilter,
}

/// The socket cannot be opened.
#[derive(Debug, Error)]
#[error("cannot listen on {path}; is the volume podwitness-state mounted there?")]
pub struct LogSocketError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl LogSocket {
    /// Opens the socket at `path`, in place of one that an earlier start left.
    ///
    /// # Errors
    /// Where the directory is missing or not ours.
    pub fn bind(path: &Path, set: SetFilter) -> Result<Self, LogSocketError> {
        let open = || {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let listener = UnixListener::bind(path)?;
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = open().map_err(|source| LogSocketError { path: path.to_owned(), source })?;
        Ok(Self { listener, set })
    }

    /// Answers for as long as it runs.
    pub async fn run(self) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // The semaphore is never closed, so that there always is a permit.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let set = Arc::clone(&self.set);
            tokio::spawn(async move {
                // Who does not read or write in time is gone.
                let _ = timeout(MAX_LIFE, serve(stream, &set)).await;
                drop(permit);
            });
        }
    }
}

/// The filter of the running program.
#[must_use]
pub fn set_filter(handle: LogHandle) -> SetFilter {
    Arc::new(move |filter| handle.set(filter).map_err(|error| error.to_string()))
}

async fn serve(mut stream: UnixStream, set: &SetFilter) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(MAX_LINE)).read_line(&mut line).await?;
    write.write_all(answer(&line, set).as_bytes()).await
}

fn answer(line: &str, set: &SetFilter) -> String {
    let Some(filter) = line.strip_suffix('\n').and_then(|line| line.strip_prefix(COMMAND)) else {
        return "error: say log-level FILTER\n".to_owned();
    };
    match set(filter.trim()) {
        Ok(()) => {
            tracing::info!(filter, "the log filter was changed");
            "ok\n".to_owned()
        }
        Err(error) => format!("error: {error}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn set(filters: &Arc<Mutex<Vec<String>>>) -> SetFilter {
        let filters = Arc::clone(filters);
        Arc::new(move |filter| match filter {
            "" => Err("empty".into()),
            filter => {
                filters.lock().unwrap().push(filter.into());
                Ok(())
            }
        })
    }

    async fn say(path: &Path, text: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn a_line_that_was_cut_off_changes_nothing() {
        let filters = Arc::default();
        assert!(answer("log-level podwitness_proxy=debug,podwit", &set(&filters)).starts_with("error: say"));
        assert!(filters.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn only_the_log_filter_can_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.sock");
        let filters = Arc::default();
        // A second start finds the first one's socket.
        drop(LogSocket::bind(&path, set(&filters)).unwrap());
        let server = tokio::spawn(LogSocket::bind(&path, set(&filters)).unwrap().run());
        assert_eq!(say(&path, "log-level debug\n").await, "ok\n");
        assert_eq!(say(&path, "log-level \n").await, "error: empty\n");
        for other in ["stop\n", "log-level\n", "\n"] {
            assert!(say(&path, other).await.starts_with("error: say"), "{other:?}");
        }
        assert_eq!(*filters.lock().unwrap(), ["debug"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        server.abort();
    }
}
