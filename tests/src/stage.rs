//! Where other people's clients are compared: each runs in a plain pod and in a witnessed one, against the same target.
//! What it prints, and how it ends, has to be what it is without the sidecar, and the recording what it printed, byte for
//! byte.
//!
//! The commands that it runs there stand in one script, `DO`, so that nothing has to be quoted twice.

use anyhow::{Context as _, Result, ensure};
use podwitness_core::labels;
use serde_json::Value;

use crate::{
    Namespace, Recording, Run, TOOLBOX, Viewer,
    counting::hex,
    pods::{running, sleeper},
    schedule::{Class, enter},
};

/// What the target does when asked; the second word only tells one recording from another. It outlives much output: an
/// API server keeps nothing for those who have not read everything when a command ends.
const DO: &str = r#"case $1 in
plain) echo out; echo err >&2; sleep 0.3; echo out again; sleep 0.3; exit 7 ;;
stderr) echo only this >&2 ;;
letters) for byte in 107 303 274 342 202 254 360 237 230 200 376 377 110; do printf "\\$byte"; sleep 0.05; done ;;
typed) head -n 1; echo done ;;
terminal) until [ "$(stty size 2>/dev/null)" = "31 101" ]; do sleep 0.1; done; stty size; printf 'ready '; read -r x; echo "heard $x"; exit 7 ;;
out) cat /tmp/text; sleep 6 ;;
in) head -c "$(stat -c %s /tmp/text)" | sha256sum ;;
esac
"#;

/// Types a line once something is shown, and another once that was answered: what a container says before its client is
/// attached, or after its input has ended, may be lost to the client.
const ATTACH: &str = r#"rm -f /tmp/shown
typed() {
  sh /tmp/shows.sh waiting 60; echo one; sh /tmp/shows.sh "heard one" 60; echo quit; sh /tmp/shows.sh "heard quit" 60; sleep 1
}
typed | $K attach -i NAME-$SIDE >/tmp/shown; code=$?
grep -v waiting /tmp/shown; exit $code"#;

/// Prepares the client's pod. `shows TEXT SECONDS` waits until a text is shown, no longer than that. `screen PROMPT LINE
/// COMMAND` types a line once it is asked for, prints what was shown and ends as the command ended; `pty COMMAND` runs one
/// on a terminal of 101x31.
const PREPARE: &str = r#"cat >/tmp/shows.sh <<'END'
for try in $(seq $(($2 * 10))); do grep -qs "$1" /tmp/shown && exit; sleep 0.1; done
END
cat >/tmp/screen.sh <<'END'
prompt=$1 line=$2; shift 2
rm -f /tmp/keys /tmp/shown; mkfifo /tmp/keys
"$@" </tmp/keys >/tmp/shown 2>&1 &
exec 3>/tmp/keys
sh /tmp/shows.sh "$prompt" 30
printf "$line" >&3
wait $!; code=$?
cat /tmp/shown; exit $code
END
cat >/tmp/pty.sh <<'END'
exec script -qefc "stty cols 101 rows 31; ${*@Q}" /dev/null
END
"#;

/// One client, and how it is called.
#[derive(Debug)]
pub struct Client {
    /// Tells its recordings from those of others in the same pod.
    name: &'static str,
    /// What stands before `exec`.
    command: &'static str,
    /// Whether it needs a terminal of its own to ask for one, and can run, debug and cp.
    is_kubectl: bool,
}

/// Where a test runs: what is called, and those who call.
#[derive(Debug)]
pub struct Stage<'a> {
    plain: &'a Namespace,
    witnessed: &'a Namespace,
    viewer: Viewer,
    /// SHA-256 of the 10 MB that the target has, as sha256sum prints it.
    sum: String,
}

/// Runs `test` with this pod, `client`, in either namespace.
///
/// # Errors
/// Those of `test`, and where a pod does not start.
pub async fn on_stage(client: &Value, test: impl AsyncFnOnce(&Stage<'_>) -> Result<()>) -> Result<()> {
    enter(Class::Long).await;
    Namespace::plain(async |plain| {
        Namespace::with(&[(labels::INJECT, "required")], async |witnessed| {
            let server =
                "mkdir /tmp/www; echo served >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";
            plain.start(&sleeper("target")).await?;
            plain.start(&running("server", TOOLBOX, server)).await?;
            for ns in [plain, witnessed] {
                ns.allow_all().await?;
                ns.start(client).await?;
                ns.shell("client", PREPARE).await?.ok()?;
            }
            let make = "head -c 7400000 /dev/urandom | base64 >/tmp/text; sha256sum </tmp/text";
            let sum = plain.shell("target", make).await?.ok()?.text();
            let write = ["exec", "target", "--", "sh", "-c", "printf %s \"$0\" >/tmp/do", DO];
            plain.kubectl.run(&write).await?.ok()?;
            test(&Stage { plain, witnessed, viewer: Viewer::open().await?, sum }).await
        })
        .await
    })
    .await
}

impl Stage<'_> {
    /// Runs a script in both pods; `$K` is the client, `$SIDE` differs. The outcome has to be the same.
    async fn both(&self, client: &Client, what: &str, script: &str) -> Result<Run> {
        let (expected, found) =
            tokio::try_join!(self.run(self.plain, client, script), self.run(self.witnessed, client, script))?;
        ensure!(
            found == expected,
            "{} {what}: with the sidecar {found:?}, without {expected:?}",
            client.name
        );
        Ok(found)
    }

    async fn run(&self, ns: &Namespace, client: &Client, script: &str) -> Result<Run> {
        let side = if ns.name == self.plain.name { "plain" } else { "witnessed" };
        let script = format!("K='{} -n {}' SIDE={side}; {script}", client.command, self.plain.name);
        let run = ns.shell("client", &script).await?;
        let hide = |text: &str| {
            let text = text.replace(&self.plain.name, "NS").replace(&self.witnessed.name, "NS");
            text.replace(&format!("-{side}"), "-SIDE")
        };
        let code = if client.tells_codes() { run.code } else { 0 };
        // What a client says on a terminal stands among what it shows.
        let stdout = String::from_utf8(run.stdout)
            .map_or_else(|error| error.into_bytes(), |text| hide(&without(&text, is_stray)).into());
        Ok(Run { code, stdout, stderr: hide(&without(&run.stderr, |line| client.may_say(line))) })
    }

    async fn recording(&self, needle: &str) -> Result<Recording> {
        self.viewer.recording(&self.witnessed.name, needle).await
    }

    /// Everything that can be done with exec.
    ///
    /// # Errors
    /// Where something differs.
    pub async fn exec(&self, client: &Client) -> Result<()> {
        self.short_commands(client).await?;
        self.terminal(client).await?;
        self.large(client).await
    }

    /// Commands that end by themselves, with their output and their exit codes.
    ///
    /// # Errors
    /// Where something differs.
    pub async fn short_commands(&self, client: &Client) -> Result<()> {
        let name = client.name;
        for (what, script, code) in [
            ("plain", "$K exec", 7),
            ("stderr", "$K exec", 0),
            ("letters", "$K exec", 0),
            ("typed", "printf 'a line\\nanother\\n' | $K exec -i", 0),
        ] {
            let run =
                self.both(client, what, &format!("{script} target -- sh /tmp/do {what} {name}")).await?;
            ensure!(run.code == code || !client.tells_codes(), "{name} {what}: {run:?}");
            let recording = self.recording(&format!("/tmp/do {what} {name}")).await?;
            let (out, err) = (recording.stream("stdout")?, recording.stream("stderr")?);
            ensure!(out == run.stdout, "{name} {what} printed {run:?}, recorded is {:?}", recording.lines);
            ensure!(
                run.stderr.as_bytes().starts_with(&err),
                "{name} {what} printed {run:?}, recorded is {err:?}"
            );
            let completed = recording.text("x-end") == "completed";
            ensure!(completed || !client.tells_codes(), "{name} {what}: {:?}", recording.lines);
            ensure!(recording.text("x-gap").is_empty(), "{name} {what}: {:?}", recording.lines);
        }
        Ok(())
    }

    /// A command that waits for the terminal's size and for a line.
    ///
    /// # Errors
    /// Where something differs.
    pub async fn terminal(&self, client: &Client) -> Result<()> {
        let name = client.name;
        let pty = client.pty();
        let command = format!("$K exec -i -t target -- sh /tmp/do terminal {name}");
        let script = format!("sh /tmp/screen.sh ready 'a line\\r' {pty} {command}");
        let run = self.both(client, "terminal", &script).await?;
        ensure!(run.text().contains("31 101") && run.text().contains("heard a line"), "{name}: {run:?}");
        let recording = self.recording(&format!("/tmp/do terminal {name}")).await?;
        let output = recording.output()?;
        ensure!(run.stdout.starts_with(&output), "{name} showed {run:?}, recorded is {:?}", recording.lines);
        ensure!(String::from_utf8_lossy(&output).ends_with("heard a line\r\n"), "{:?}", recording.lines);
        Ok(())
    }

    /// 10 MB each way, many times what all buffers on the way hold.
    async fn large(&self, client: &Client) -> Result<()> {
        let name = client.name;
        let out = format!("$K exec target -- sh /tmp/do out {name} | tee /tmp/text | sha256sum");
        let run = self.run(self.witnessed, client, &out).await?;
        ensure!(run.text() == self.sum, "{name} printed {run:?}, not {}", self.sum);
        let output = self.recording(&format!("/tmp/do out {name}")).await?.output()?;
        let hex = hex(&output);
        ensure!(self.sum.starts_with(&hex), "{name}: recorded {} bytes, {hex}", output.len());
        let give = format!("$K exec -i target -- sh /tmp/do in {name} </tmp/text");
        let run = self.run(self.witnessed, client, &give).await?;
        ensure!(run.text() == self.sum, "{name} was given {}, counted {run:?}", self.sum);
        ensure!(self.recording(&format!("/tmp/do in {name}")).await?.output()? == run.stdout, "{name}");
        Ok(())
    }

    /// A pod that is attached to, once for each side: it ends with its session.
    ///
    /// # Errors
    /// Where something differs.
    pub async fn attach(&self, client: &Client) -> Result<()> {
        let name = client.name;
        let echo = "while echo waiting; do sleep 0.2; done & while read -r x; do kill $! 2>/dev/null && wait; \
                    echo heard $x; [ $x != quit ] || { sleep 3; exit 0; }; done";
        for side in ["plain", "witnessed"] {
            let mut pod = running(&format!("{name}-{side}"), TOOLBOX, echo);
            let container = pod.pointer_mut("/spec/containers/0").and_then(Value::as_object_mut);
            container.context("no container")?.insert("stdin".into(), true.into());
            pod.pointer_mut("/spec")
                .and_then(Value::as_object_mut)
                .context("no spec")?
                .insert("restartPolicy".into(), "Never".into());
            self.plain.start(&pod).await?;
        }
        let run = self.both(client, "attach", &ATTACH.replace("NAME", name)).await?;
        ensure!(run.text() == "heard one\nheard quit\n", "{name} attached: {run:?}");
        let recording = self.attached(&format!("{name}-witnessed"), "app").await?;
        let shown = self.witnessed.shell("client", "cat /tmp/shown").await?.ok()?;
        ensure!(
            recording.output()? == shown.stdout,
            "{name} printed {shown:?}, recorded is {:?}",
            recording.lines
        );
        Ok(())
    }

    async fn attached(&self, pod: &str, container: &str) -> Result<Recording> {
        let is =
            |entry: &Value, key: &str, value: &str| entry.pointer(key).and_then(Value::as_str) == Some(value);
        self.viewer
            .recording_where(&self.witnessed.name, |entry| {
                (pod.is_empty() || is(entry, "/pod", pod)) && is(entry, "/container", container)
            })
            .await
            .with_context(|| format!("no recording of container {container} of pod {pod:?}"))
    }

    /// A port that is asked for a page.
    ///
    /// # Errors
    /// Where something differs.
    pub async fn port_forward(&self, client: &Client) -> Result<()> {
        let script = if client.is_kubectl {
            ": >/tmp/forwarded; $K port-forward pod/server :8080 >/tmp/forwarded & p=$!
             until port=$(sed -n 's/.*127.0.0.1:\\([0-9]*\\).*/\\1/p' /tmp/forwarded) && [ \"$port\" ]; do sleep 0.1; done
             python3 -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read())' http://127.0.0.1:$port/
             kill $p"
        } else {
            "$K port-forward server 8080"
        };
        let run = self.both(client, "port-forward", script).await?;
        ensure!(run.text().contains("served"), "{} forwarded {run:?}", client.name);
        Ok(())
    }

    /// What kubectl alone does: run, debug and cp.
    ///
    /// # Errors
    /// Where something differs.
    pub async fn kubectl(&self, client: &Client, debugs: bool) -> Result<()> {
        let image = format!("--image={TOOLBOX} --image-pull-policy=IfNotPresent");
        let node = self.plain.kubectl.get(&["pod", "target"]).await?;
        let node = node.pointer("/spec/nodeName").and_then(Value::as_str).context("no node")?;
        // A container that ends at once takes with it what its client has not been given.
        let ask = "sh -c 'head -n 1; sleep 2'";
        let run = format!("run run-$SIDE {image} --restart=Never -it -- {ask}");
        self.on_screen(client, "run", &run, "run-witnessed").await?;
        let copy = format!("debug target --copy-to=copy-$SIDE {image} -c copy-$SIDE -it -- {ask}");
        let node = format!("debug node/{node} {image} -it -- {ask}");
        let within = format!("debug target {image} -c within-$SIDE -it -- {ask}");
        if debugs {
            self.on_screen(client, "debug, copy", &copy, "copy-witnessed").await?;
            self.on_screen(client, "debug, node", &node, "debugger").await?;
            self.on_screen(client, "debug, ephemeral", &within, "within-witnessed").await?;
        }
        // What a command says last is lost where its client does not read in time, and kubectl does not notice.
        let cp = "head -c 300000 /dev/urandom >/tmp/f; $K cp -c app /tmp/f target:/tmp/f-$SIDE && \
                  for try in 1 2 3 4 5; do $K cp -c app target:/tmp/f-$SIDE /tmp/g >/dev/null 2>&1; \
                  cmp -s /tmp/f /tmp/g && echo same && break; done";
        let run = self.both(client, "cp", cp).await?;
        ensure!(run.text() == "same\n", "{} copied {run:?}", client.name);
        Ok(())
    }

    /// A pod or container made for a session on a terminal. What kubectl says around it depends on how fast it starts.
    async fn on_screen(&self, client: &Client, what: &str, command: &str, container: &str) -> Result<()> {
        let script = format!("sh /tmp/screen.sh 'command prompt' 'a line\\r' {} $K {command}", client.pty());
        for ns in [self.plain, self.witnessed] {
            let run = self.run(ns, client, &script).await?;
            let shown = run.text();
            ensure!(
                run.code == 0 && shown.contains("a line\r\na line\r\n"),
                "{} {what}: {run:?}",
                client.name
            );
            if ns.name == self.witnessed.name {
                let recording = self.attached("", container).await?;
                let output = String::from_utf8(recording.output()?)?;
                ensure!(output == "a line\r\na line\r\n", "{} {what}: {:?}", client.name, recording.lines);
            }
        }
        Ok(())
    }
}

impl Client {
    /// A kubectl.
    #[must_use]
    pub const fn kubectl(name: &'static str, command: &'static str) -> Self {
        Self { name, command, is_kubectl: true }
    }

    /// A program of ours around a client library, with the command line of hack/interop's.
    #[must_use]
    pub const fn program(name: &'static str, command: &'static str) -> Self {
        Self { name, command, is_kubectl: false }
    }

    /// Runs what follows on a terminal, where the client insists on one.
    const fn pty(&self) -> &'static str {
        if self.is_kubectl { "bash /tmp/pty.sh" } else { "" }
    }

    /// The first channel protocols say how a command ended in words only, which may come too late for the client.
    fn tells_codes(&self) -> bool {
        !self.name.contains("-v1") && !self.name.contains("-v2") && !self.name.contains("-v3")
    }

    /// Whether it is chance that this client, without a sidecar too, says this on its standard error.
    fn may_say(&self, line: &str) -> bool {
        let ends = line.starts_with("error: ") || line.starts_with("command terminated with exit code ");
        is_stray(line) || (ends && !self.tells_codes())
    }
}

/// What was printed, without the lines that are there by chance.
fn without(printed: &str, by_chance: impl Fn(&str) -> bool) -> String {
    printed.split_inclusive('\n').filter(|line| !by_chance(line)).collect()
}

/// Whether a client says this where a message comes before it has made its streams.
fn is_stray(line: &str) -> bool {
    line.contains("] Unknown stream id ")
}

/// Runs everything that a program can do, in this image.
///
/// # Errors
/// Where something differs.
pub async fn program_is_like_without(pod: &Value, client: &Client) -> Result<()> {
    on_stage(pod, async |stage| {
        stage.exec(client).await?;
        stage.attach(client).await?;
        stage.port_forward(client).await
    })
    .await
}
