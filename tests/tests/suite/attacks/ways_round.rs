//! Every way round the recorder that is known, tried from inside a pod: each ends recorded or refused, under fail open and
//! under fail closed. The table of them is what the test shows.
//!
//! Nothing is inferred from what is missing alone. The target says by a file whether a command ran; the viewer, whether it
//! was recorded; the client, who refused it. Where a pod without a sidecar runs the command in the same way, the way is a
//! real one.

mod begun;
mod held;
mod rows;
mod run;
mod verdict;

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Namespace, Table, Viewer, eventually,
    grants::{enforced, with_grant},
    pods::{clients, on_control_plane, witnessed_by},
    report,
    schedule::{Class, enter},
};
use serde_json::Value;

use super::api_server_addresses::{another_service, endpoint, is_known, node_addresses};
use rows::{Place, Row, ordinary, rows};
use run::{Tried, ran};
use verdict::{Verdict, after_recordings};

/// Where attempts are made, and what applies there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pass {
    /// In a pod without a sidecar.
    Direct,
    /// Under fail open.
    Open,
    /// Under fail closed, with a recorder.
    Closed,
    /// Under fail closed, without one.
    Refusing,
}

impl Pass {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "no sidecar",
            Self::Open => "fail open",
            Self::Closed => "fail closed",
            Self::Refusing => "fail closed, no recorder",
        }
    }

    /// What a command is known by that the row with this number runs.
    fn mark(self, number: usize) -> String {
        format!("way-{self:?}-{number}-").to_lowercase()
    }
}

/// The pods, and the ways.
struct Arena<'a> {
    /// Has the pod `witness`.
    ns: &'a Namespace,
    /// Has the pod `target`, which is also the one without a sidecar.
    plain: &'a Namespace,
    viewer: Viewer,
    place: Place,
    rows: Vec<Row>,
}

/// What came of one pass, row by row.
struct Column {
    pass: Pass,
    verdicts: Vec<Verdict>,
}

#[tokio::test]
async fn every_way_round_ends_recorded_or_refused() -> Result<()> {
    enter(Class::Long).await;
    let (witness, target) =
        (on_control_plane(clients("witness")).await?, on_control_plane(clients("target")).await?);
    witnessed_by(&witness, &target, async |ns, plain| {
        plain.allow_all().await?;
        let arena = Arena::open(ns, plain).await?;
        let direct = arena.column(Pass::Direct).await?;
        let open = arena.column(Pass::Open).await?;
        let (mut closed, mut refusing) = (None, None);
        with_grant(&enforced(&ns.name, "tag:podwitness"), async || {
            arena.is_told("speak --path /api/%zz", "podwitness: ").await?;
            closed = Some(arena.column(Pass::Closed).await?);
            Ok(())
        })
        .await?;
        with_grant(&enforced(&ns.name, "tag:nobody"), async || {
            let session = arena.place.script(&ordinary(), "way-none-");
            arena.is_told(&session, "no Recorder that is ready has its tag").await?;
            refusing = Some(arena.column(Pass::Refusing).await?);
            Ok(())
        })
        .await?;
        arena.conclude(&[direct, open, closed.context("no column")?, refusing.context("no column")?])
    })
    .await
}

impl<'a> Arena<'a> {
    /// Waits until everything is known that makes an attempt count: sessions are recorded, and the sidecar knows of the
    /// Service that leads to the API server.
    async fn open(ns: &'a Namespace, plain: &'a Namespace) -> Result<Self> {
        let viewer = Viewer::open().await?;
        let settle = format!("kubectl -n {} exec target -- echo settled", plain.name);
        ns.shell("witness", &settle).await?.ok()?;
        viewer.recording(&ns.name, "echo settled").await?;
        let service = another_service(plain).await?;
        is_known(ns, &service).await?;
        let (_, port) = endpoint().await?;
        let nodes = node_addresses(ns).await?;
        let [api_server, gateway] = nodes.as_slice() else { anyhow::bail!("{nodes:?}") };
        let target = plain.kubectl.get(&["pod", "target"]).await?;
        let node = target.pointer("/spec/nodeName").and_then(Value::as_str).context("no node")?;
        let place = Place { namespace: plain.name.clone(), node: node.to_owned() };
        let rows =
            rows(&format!("{api_server}:{port}"), &format!("{gateway}:{port}"), &format!("{service}:443"));
        Ok(Self { ns, plain, viewer, place, rows })
    }

    /// Waits until a script in the witnessed pod is told something.
    async fn is_told(&self, script: &str, text: &str) -> Result<()> {
        eventually("the grant is enforced", async || {
            let run = self.ns.shell("witness", script).await?;
            ensure!(run.stderr.contains(text), "{run:?}");
            Ok(())
        })
        .await
    }

    const fn pod(&self, pass: Pass) -> (&'a Namespace, &'static str) {
        match pass {
            Pass::Direct => (self.plain, "target"),
            _ => (self.ns, "witness"),
        }
    }

    /// Tries every way once.
    async fn column(&self, pass: Pass) -> Result<Column> {
        let (ns, pod) = self.pod(pass);
        let mut tried = run::all(ns, pod, &self.scripts(pass)).await?;
        for (number, row) in self.rows.iter().enumerate().filter(|(_, row)| row.is_held) {
            let mark = pass.mark(number);
            tried.insert(number, held::try_one(self, pass, &mark, &self.place.script(row, &mark)).await?);
        }
        let ran = ran(self.plain).await?;
        let marked: Vec<(String, Tried)> =
            tried.into_iter().enumerate().map(|(number, tried)| (pass.mark(number), tried)).collect();
        let verdicts = match pass {
            Pass::Direct => marked
                .iter()
                .map(|(mark, tried)| Verdict::without_sidecar(ran.contains(mark), tried))
                .collect(),
            _ => after_recordings(&self.viewer, &self.ns.name, &self.plain.name, &marked, &ran).await?,
        };
        Ok(Column { pass, verdicts })
    }

    /// The scripts of a pass, but for those that are held.
    fn scripts(&self, pass: Pass) -> Vec<String> {
        let rows = self.rows.iter().enumerate().filter(|(_, row)| !row.is_held);
        rows.map(|(number, row)| self.place.script(row, &pass.mark(number))).collect()
    }

    /// Shows the table, and fails where a cell is not as it has to be.
    fn conclude(&self, columns: &[Column]) -> Result<()> {
        let mut header = vec!["", "way"];
        header.extend(columns.iter().map(|column| column.pass.name()));
        let mut table = Table::new(&header);
        let mut wrong = Vec::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut cells = vec![row.point.to_owned(), row.name.clone()];
            for column in columns {
                let verdict = column.verdicts.get(number).context("a cell is missing")?;
                cells.push(verdict.to_string());
                if let Some(why) = row.wrong(column.pass, verdict) {
                    wrong.push(format!("{} {}, {}: {why}", row.point, row.name, column.pass.name()));
                }
            }
            table.add(cells);
        }
        report::show("ways round the recorder", &table.to_string());
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }
}
