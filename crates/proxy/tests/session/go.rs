//! Another implementation as recorder: Go's HTTP stack, used as existing recorders use it.

use std::{
    io::{self, BufRead as _, BufReader, Lines},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
};

use podwitness_proxy::BoxedStream;

use crate::{kit::*, recorder::Peer};

/// A recorder that is a program.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Program {
    /// Built first, so that what is started is what is ended.
    fn start(version: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("recorder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/session/recorder.go");
        let built = Command::new("go").arg("build").arg("-o").arg(&binary).arg(source).status().unwrap();
        assert!(built.success());
        let mut child = Command::new(&binary).arg(version).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap().parse().unwrap();
        Self { child, lines, port }
    }

    /// Length of the next recording that has ended.
    fn recorded(&mut self) -> u64 {
        let line = self.lines.next().unwrap().unwrap();
        line.split_once(' ').unwrap().0.parse().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of this machine.
struct Port(u16);

impl Peer for Port {
    fn dialled(&self) -> io::Result<BoxedStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.0))?;
        stream.set_nonblocking(true)?;
        Ok(Box::new(tokio::net::TcpStream::from_std(stream)?))
    }
}

async fn shipped_to(version: &str) {
    let mut program = Program::start(version);
    let pod = Pod::new();
    pod.network.put(ONE, Arc::new(Port(program.port)));
    pod.name(&[ONE]);
    let mut session = pod.session(meta(), open()).await;
    for _ in 0..64 {
        session.says(&frame(1, &[b'x'; 16 << 10])).await;
    }
    session.ends(SUCCESS).await;
    let shipped = "podwitness_session_recordings_total{result=\"Complete\"}";
    eventually("shipped", || pod.metric(shipped) == 1).await;
    assert_eq!(pod.metric("podwitness_session_broken_uploads_total"), 0);
    let recorded = tokio::task::spawn_blocking(move || program.recorded()).await.unwrap();
    assert!(recorded > 64 * (16 << 10), "{recorded}");
    let unacknowledged = pod.metric("podwitness_session_unacknowledged_bytes_total");
    assert_eq!(unacknowledged > 0, version == "v1");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs go"]
async fn a_recorder_in_go_of_version_1_takes_a_recording() {
    shipped_to("v1").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs go"]
async fn a_recorder_in_go_of_version_2_takes_a_recording() {
    shipped_to("v2").await;
}
