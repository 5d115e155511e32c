//! One session of the matrix: which one, and what its user saw.

use anyhow::{Context as _, Result};
use podwitness_e2e::{Run, cluster::exec_until};

use super::lab::Lab;

/// Exit code of every script.
pub const EXIT: i32 = 3;
/// What [`FLOOD`] says before it waits.
pub const BEGUN: &str = "begun\n";
/// Numbers that it prints then: several times the lead, and more than the whole volume of a small recorder, which may
/// write much at once before it looks.
const NUMBERS: u32 = 60_000;
/// A command that says a word, waits, says a lot, and outlives that: a runtime keeps nothing of a command that has ended.
pub const FLOOD: Script = Script {
    name: "flood",
    text: "echo begun; touch /tmp/$1.ran; until test -e /tmp/go; do sleep 0.2; done; seq -w 1 060000; sleep 6; exit 3",
};
/// A command that says a word.
pub const BRIEF: Script = Script { name: "brief", text: "echo ran; touch /tmp/$1.ran; exit 3" };

/// File in the pod of each lane, which runs a command and says how it ended. It goes on until its user has seen that:
/// an API server keeps nothing for those who have not read everything when a command ends. On a terminal it first waits for
/// the size: kubectl that is told one after its session has ended says so.
pub const AT_LAST: &str = "/tmp/at-last";
/// What it does.
pub const AT_LAST_TEXT: &str = r#"for try in $(seq 100); do
  [ ! -t 0 ] || [ "$(stty size 2>/dev/null)" = "24 80" ] && break
  sleep 0.1
done
"$@" 2>&1
echo "kubectl left with $?"
read -r end
"#;
const LEFT: &str = "kubectl left with ";
/// Most of what else was printed that an error shows; what was expected is less.
const SHOWN: usize = 2000;

/// A script in the pod that sessions are made with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Script {
    /// Its file below `/tmp`.
    pub name: &'static str,
    /// What it does; `$1` names the session.
    pub text: &'static str,
}

/// The pod that a session is made from, by what its grant says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lane {
    /// Fail open, to the recorder of the test.
    Open,
    /// Fail closed, to the recorder of the test.
    Closed,
    /// Fail closed, to the recorder of the test, and else to the installed one.
    Next,
}

/// One session.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub lane: Lane,
    pub spdy: bool,
    pub tty: bool,
    pub script: Script,
}

/// What the user of a session saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Exit code of kubectl.
    pub code: i32,
    /// How many bytes of the script's output, counted without carriage returns.
    pub shown: usize,
    /// What else was printed.
    pub said: String,
}

impl Script {
    /// Everything that it prints.
    pub fn output(self) -> String {
        if self == BRIEF {
            return "ran\n".to_owned();
        }
        let numbers = (1..=NUMBERS).map(|number| format!("{number:06}\n"));
        [BEGUN.to_owned()].into_iter().chain(numbers).collect()
    }
}

impl Lane {
    pub const ALL: [Self; 3] = [Self::Open, Self::Closed, Self::Next];

    /// Name of the pod.
    pub const fn pod(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Next => "next",
        }
    }
}

impl Case {
    /// Every kind of session with a script, in these lanes.
    pub fn all(lanes: &[Lane], script: Script) -> Vec<Self> {
        let forms = [(false, false), (false, true), (true, false), (true, true)];
        let cases = |lane: &Lane| forms.map(|(spdy, tty)| Self { lane: *lane, spdy, tty, script });
        lanes.iter().flat_map(cases).collect()
    }

    /// A name that no other session of the test has.
    pub fn id(&self) -> String {
        let transport = if self.spdy { "spdy" } else { "websocket" };
        let terminal = if self.tty { "tty" } else { "pipe" };
        format!("{}-{}-{transport}-{terminal}", self.script.name, self.lane.pod())
    }

    /// Runs it to its end.
    pub async fn run(&self, lab: &Lab<'_>) -> Result<Seen> {
        let inside = if self.tty { "-it" } else { "-i=false" };
        let websockets = format!("KUBECTL_REMOTE_COMMAND_WEBSOCKETS={}", !self.spdy);
        let file = format!("/tmp/{}", self.script.name);
        let id = self.id();
        let user = ["sh", AT_LAST, "env", &websockets, "kubectl"];
        let exec = ["-n", &lab.plain.name, "exec", inside, "target", "--", "sh", &file, &id];
        let words = [&user[..], &exec].concat();
        let terminal = self.tty.then_some((80, 24));
        let run = exec_until(&lab.ns.name, self.lane.pod(), "app", &words, terminal, LEFT).await?;
        self.seen(&run)
    }

    fn seen(&self, run: &Run) -> Result<Seen> {
        let (printed, expected) = (run.text().replace('\r', ""), self.script.output());
        let shown = printed.bytes().zip(expected.bytes()).take_while(|(one, other)| one == other).count();
        let rest = printed.get(shown..).unwrap_or_default();
        let rest = rest.get(..rest.floor_char_boundary(SHOWN)).unwrap_or_default();
        let lost = || format!("{} has no end, {} after {shown} bytes: {rest}", self.id(), run.code);
        let (said, code) = rest.split_once(LEFT).with_context(lost)?;
        let code = code.lines().next().unwrap_or_default().parse()?;
        Ok(Seen { code, shown, said: said.to_owned() })
    }
}
