//! A session is recorded as it was, and nobody notices.

use anyhow::{Context as _, Result, ensure};
use podwitness_e2e::{
    Kubectl, Namespace, SYSTEM, Viewer,
    counting::hex,
    pods::{beside, installed, sleeper},
    pty::on_terminal,
};
use serde_json::Value;

/// Runs `test` with a witnessed namespace that has a pod `witness`, and a plain one that has a pod `target`.
async fn with_pods(test: impl AsyncFnOnce(&Namespace, &Namespace) -> Result<()>) -> Result<()> {
    beside(&sleeper("target"), test).await
}

#[tokio::test]
async fn fifty_megabytes_without_a_terminal_are_recorded_byte_for_byte() -> Result<()> {
    with_pods(async |ns, plain| {
        let made =
            plain.shell("target", "head -c 50000000 /dev/urandom >/tmp/r; sha256sum </tmp/r").await?.ok()?;
        // The command stays until all is printed: what an API server has not sent when a command ends is lost.
        let exec = format!("kubectl -n {} exec -i target -- sh -c 'cat /tmp/r; read end'", plain.name);
        let script = format!(
            "mkfifo /tmp/in; exec 3<>/tmp/in; {exec} <&3 | {{ head -c 50000000 | sha256sum; echo >&3; }}"
        );
        let seen = ns.shell("witness", &script).await?.ok()?;
        ensure!(seen.text() == made.text(), "kubectl printed {}, the file is {}", seen.text(), made.text());
        let recording = Viewer::open().await?.recording(&ns.name, "cat /tmp/r").await?;
        let output = recording.output()?;
        ensure!(output.len() == 50_000_000, "{} bytes are recorded", output.len());
        let hex = hex(&output);
        ensure!(made.text().starts_with(&hex), "recorded {hex}, made {}", made.text());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_terminal_session_is_recorded_with_its_sizes() -> Result<()> {
    with_pods(async |ns, plain| {
        // The size comes after the command has started; until then stty succeeds and says nothing.
        let script = "until stty size 2>/dev/null | grep .; do sleep 0.1; done; printf Grüße; exit 7";
        let inner = format!("kubectl -n {} exec -it target -- sh -c '{script}'", plain.name);
        let outer = format!("kubectl -n {} exec -it witness -c app -- {inner}", ns.name);
        let run = on_terminal(101, 31, &outer, "", "").await?;
        ensure!(run.text().contains("31 101") && run.text().contains("Grüße"), "{run:?}");
        ensure!(run.code == 7, "{run:?}");
        let recording = Viewer::open().await?.recording(&ns.name, "stty size").await?;
        let header = &recording.header;
        ensure!(header.get("width") == Some(&Value::from(101)), "{header}");
        ensure!(header.get("height") == Some(&Value::from(31)), "{header}");
        ensure!(recording.text("o").contains("Grüße"), "{:?}", recording.lines);
        ensure!(recording.text("x-exit") == "7", "{:?}", recording.lines);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_recording_says_who_did_what_where() -> Result<()> {
    with_pods(async |ns, plain| {
        let script = format!(
            "kubectl -n {} exec target -- sh -c 'echo out; echo err >&2; echo $0' \"a & b\"",
            plain.name
        );
        let run = ns.shell("witness", &script).await?.ok()?;
        ensure!(run.text() == "out\na & b\n" && run.stderr == "err\n", "{run:?}");
        let recording = Viewer::open().await?.recording(&ns.name, "echo err").await?;
        let header = &recording.header;
        ensure!(text(header, "/kubernetes/PodName") == "target", "{header}");
        ensure!(text(header, "/kubernetes/Namespace") == plain.name, "{header}");
        ensure!(text(header, "/kubernetes/SessionType") == "exec", "{header}");
        ensure!(
            text(header, "/srcNodeUser") == format!("system:serviceaccount:{}:default", ns.name),
            "{header}"
        );
        ensure!(text(header, "/podwitness/pod") == "witness", "{header}");
        ensure!(header.pointer("/podwitness/verified") == Some(&Value::Bool(true)), "{header}");
        ensure!(text(header, "/command").ends_with("a & b"), "{header}");
        let switched = recording.lines.iter().any(|(_, code, text)| code == "x-stream" && text == "stderr");
        ensure!(switched, "{:?}", recording.lines);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_answer_to_a_password_prompt_is_found_nowhere() -> Result<()> {
    with_pods(async |ns, plain| {
        let canary = "canary-7f3a-horse-battery";
        let script = "stty -echo; printf Password:; read -r p; stty echo; echo; echo length ${#p}";
        let inner = format!("kubectl -n {} exec -it target -- sh -c '{script}'", plain.name);
        let quoted = inner.replace('$', "\\$");
        let outer = format!("kubectl -n {} exec -it witness -c app -- sh -c \"{quoted}\"", ns.name);
        let run = on_terminal(80, 24, &outer, "Password:", &format!("{canary}\r")).await?;
        ensure!(run.text().contains(&format!("length {}", canary.len())), "{run:?}");
        let recording = Viewer::open().await?.recording(&ns.name, "Password:").await?;
        ensure!(!format!("{recording:?}").contains(canary), "the recording holds it");
        let everything =
            ["get", "all,configmaps,secrets,events", "-A", "-o", "yaml"].map(str::to_owned).to_vec();
        let logs = |ns: &str, pod: &str| {
            ["-n", ns, "logs", pod, "--all-containers", "--tail=-1"].map(str::to_owned).to_vec()
        };
        let system = installed().await?;
        let system = system.iter().map(|pod| logs(SYSTEM, pod));
        for args in [everything, logs(&ns.name, "witness")].into_iter().chain(system) {
            let run = Kubectl::default().run(&args).await?.ok()?;
            ensure!(!run.stdout.is_empty(), "kubectl {} shows nothing", args.join(" "));
            ensure!(!run.text().contains(canary), "kubectl {} shows it", args.join(" "));
        }
        let metrics =
            format!("wget -qO- http://$(hostname -i):{}/metrics", podwitness_core::inject::ADMIN_PORT);
        let metrics = ns.shell("witness", &metrics).await?.ok()?.text();
        ensure!(metrics.contains("podwitness"), "no metrics: {metrics}");
        ensure!(!metrics.contains(canary), "the metrics hold it");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_sessions_end_is_recorded_when_kubectl_is_killed() -> Result<()> {
    with_pods(async |ns, plain| {
        let script = format!(
            "kubectl -n {} exec target -- sh -c 'echo begun; sleep 600' >/tmp/out 2>&1 & \
             until grep -q . /tmp/out; do kill -0 $! || exit; sleep 0.1; done; \
             kill -KILL $!; wait $!; echo $?; cat /tmp/out",
            plain.name
        );
        let run = ns.shell("witness", &script).await?;
        ensure!(run.text() == "137\nbegun\n", "{run:?}");
        let recording = Viewer::open().await?.recording(&ns.name, "echo begun").await?;
        ensure!(recording.text("o") == "begun\n");
        recording.lines.iter().find(|(_, code, _)| code == "x-close").context("no outcome")?;
        Ok(())
    })
    .await
}

/// `run` and `debug` say what is to run in one request and attach to it in another.
#[tokio::test]
async fn attached_sessions_are_recorded_with_their_command_and_image() -> Result<()> {
    with_pods(async |ns, plain| {
        let image = "podwitness.dev/toolbox:dev";
        // What a container says before its client is attached, or after its input has ended, may be lost to the client:
        // it speaks until it is answered, and lives until that was seen.
        let ask = "sh -c 'while echo waiting; do sleep 0.2; done & read x; kill $!; echo heard $x; read x; sleep 1'";
        for (via, how) in [
            (
                "run",
                format!(
                    "run made --image={image} --image-pull-policy=IfNotPresent --restart=Never -i -- {ask}"
                ),
            ),
            (
                "debug",
                format!(
                    "debug target --image={image} --image-pull-policy=IfNotPresent -c looking -i -- {ask}"
                ),
            ),
        ] {
            let script = format!(
                "rm -f /tmp/shown; shown() {{ until grep -qs \"$1\" /tmp/shown; do sleep 0.1; done; }}
                 (shown waiting; echo {via}ning; shown heard; echo seen; sleep 2) | kubectl -n {} {how} >/tmp/shown; cat /tmp/shown",
                plain.name
            );
            let run = ns.shell("witness", &script).await?.ok()?;
            ensure!(run.text().contains(&format!("heard {via}ning")), "{run:?}");
        }
        let viewer = Viewer::open().await?;
        for (via, container) in [("run", "made"), ("debug", "looking")] {
            let recording =
                viewer.recording_where(&ns.name, |entry| text(entry, "/container") == container).await?;
            let header = &recording.header;
            ensure!(text(header, "/podwitness/via") == via, "{header}");
            ensure!(text(header, "/kubernetes/SessionType") == "attach", "{header}");
            ensure!(text(header, "/kubernetes/Container") == container, "{header}");
            ensure!(text(header, "/podwitness/image") == image, "{header}");
            ensure!(text(header, "/podwitness/argv/2").contains("read x"), "{header}");
            ensure!(recording.text("o").contains(&format!("heard {via}ning")), "{:?}", recording.lines);
        }
        Ok(())
    })
    .await
}

fn text<'a>(header: &'a Value, pointer: &str) -> &'a str {
    header.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Each line is said once the one before it was seen.
#[tokio::test]
async fn the_streams_are_recorded_in_the_order_in_which_they_came() -> Result<()> {
    with_pods(async |ns, plain| {
        let script = format!(
            "shown() {{ until grep -qs \"$1\" /tmp/shown; do sleep 0.1; done; echo; }}
             (shown first; shown second; shown third) | kubectl -n {} exec -i target -- sh -c \
             'echo first; read x; echo second >&2; read x; echo third; read x' >/tmp/shown 2>&1",
            plain.name
        );
        ns.shell("witness", &script).await?.ok()?;
        let said = Viewer::open().await?.recording(&ns.name, "echo second").await?.said()?;
        let said: Vec<(&str, &[u8])> = said.iter().map(|(stream, said)| (&**stream, &**said)).collect();
        let expected: [(&str, &[u8]); 3] =
            [("stdout", b"first\n"), ("stderr", b"second\n"), ("stdout", b"third\n")];
        ensure!(said == expected, "{said:?}");
        Ok(())
    })
    .await
}

/// What kubectl falls back to, and what older clients speak.
#[tokio::test]
async fn sessions_over_spdy_are_recorded_byte_for_byte() -> Result<()> {
    with_pods(async |ns, plain| {
        let over_spdy = "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false kubectl";
        let make = "head -c 5000000 /dev/urandom >/tmp/s; sha256sum </tmp/s";
        let made = plain.shell("target", make).await?.ok()?;
        let script = format!(
            "{over_spdy} -n {0} exec target -- sh -c 'cat /tmp/s; sleep 5' | sha256sum; \
             echo typed | {over_spdy} -n {0} exec -i target -- sh -c 'cat; echo wrong >&2; exit 7'; echo $?",
            plain.name
        );
        let run = ns.shell("witness", &script).await?.ok()?;
        ensure!(run.text() == format!("{}typed\n7\n", made.text()), "{run:?}");
        let viewer = Viewer::open().await?;
        let output = viewer.recording(&ns.name, "cat /tmp/s").await?.output()?;
        let hex = hex(&output);
        ensure!(made.text().starts_with(&hex), "recorded {hex}, made {}", made.text());
        let failed = viewer.recording(&ns.name, "echo wrong").await?;
        ensure!(failed.text("x-exit") == "7" && failed.is_whole(), "{:?}", failed.lines);
        ensure!(
            failed.text("o") == "typed\nwrong\n" || failed.text("o") == "wrong\ntyped\n",
            "{:?}",
            failed.lines
        );
        Ok(())
    })
    .await
}

/// `cp` has a container write or read an archive.
#[tokio::test]
async fn files_that_are_copied_are_listed_with_their_hashes() -> Result<()> {
    with_pods(async |ns, plain| {
        let made = plain
            .shell("target", "mkdir /tmp/d && cd /tmp/d && head -c 3000000 /dev/urandom >noise && seq 5000 >text && sha256sum noise text")
            .await?
            .ok()?
            .text();
        let script = format!(
            "cd /tmp && kubectl -n {0} cp target:/tmp/d d >/dev/null && cd d && sha256sum noise text && \
             kubectl -n {0} cp noise target:/tmp/back",
            plain.name
        );
        let copied = ns.shell("witness", &script).await?.ok()?.text();
        ensure!(copied == made, "copied {copied}, made {made}");
        let back = plain.shell("target", "sha256sum </tmp/back").await?.ok()?.text();
        ensure!(made.starts_with(back.trim_end_matches(" -\n").trim()), "copied back {back}, made {made}");

        let viewer = Viewer::open().await?;
        let fetched = viewer.recording(&ns.name, "tar cf - /tmp/d").await?;
        ensure!(text(&fetched.header, "/podwitness/via") == "cp", "{}", fetched.header);
        let sums: Vec<Value> = fetched
            .lines
            .iter()
            .filter(|(_, code, _)| code == "x-sum")
            .map(|(_, _, text)| serde_json::from_str(text))
            .collect::<Result<_, _>>()?;
        for line in made.lines() {
            let (hash, name) = line.split_once("  ").context("no line of sha256sum")?;
            let is_it = |sum: &&Value| text(sum, "/member").ends_with(name) && text(sum, "/sha256") == hash;
            ensure!(sums.iter().any(|sum| is_it(&sum)), "{name} with {hash} is not in {sums:?}");
        }
        let held = fetched.output()?;
        ensure!(held.len() < 100_000, "{} bytes are recorded", held.len());
        ensure!(String::from_utf8_lossy(&held).contains("\n4999\n5000\n"), "the text is not recorded");
        let sent = viewer.recording(&ns.name, "tar -xmf -").await?;
        ensure!(sent.text("o").is_empty() && sent.text("x-exit") == "0", "{:?}", sent.lines);
        Ok(())
    })
    .await
}
