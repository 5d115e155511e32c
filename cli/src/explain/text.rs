//! The answer for people.

use std::fmt;

use podwitness_core::{
    grant::{AckLevel, Opaque},
    identity::User,
};

use super::answer::{Answer, Applied, Candidate, Choice, Follows, Outcome};

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = match self.outcome {
            Outcome::Recorded => "recorded",
            Outcome::Kept => "recorded later",
            Outcome::Refused => "refused",
            Outcome::NotRecorded => "not recorded",
        };
        writeln!(f, "{}: {}", said.to_uppercase(), self.because)?;
        writeln!(f)?;
        writeln!(f, "Request     {}", self.request())?;
        writeln!(f, "User        {}", user(&self.caller.authenticated))?;
        if self.caller.effective != self.caller.authenticated {
            writeln!(f, "On behalf   {}", user(&self.caller.effective))?;
        }
        if !self.caller.verified {
            writeln!(f, "            as if the API server could not tell who it is: every src matches")?;
        }
        writeln!(f, "From pod    {}", self.pod)?;
        writeln!(f)?;
        self.grants(f)?;
        if let Some(follows) = &self.follows {
            writeln!(f, "\nWhat follows\n{follows}")?;
        }
        for (index, note) in self.notes.iter().enumerate() {
            let gap = if index == 0 { "\n" } else { "" };
            writeln!(f, "{gap}Note: {note}")?;
        }
        Ok(())
    }
}

impl Answer {
    fn request(&self) -> String {
        let asked = &self.request;
        let place = if asked.namespace.is_empty() {
            "in the cluster's scope".to_owned()
        } else {
            format!("in namespace {}", asked.namespace)
        };
        format!("{} {} {place}", asked.verb, asked.resource)
    }

    fn grants(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.applies.is_empty() {
            writeln!(f, "No grant applies")?;
        } else {
            writeln!(f, "Grants that apply, in order")?;
        }
        for (index, applied) in self.applies.iter().enumerate() {
            writeln!(f, "  {}. {applied}", index.saturating_add(1))?;
        }
        if !self.others.is_empty() {
            writeln!(f, "\nGrants that match the pod, but do not apply")?;
        }
        for other in &self.others {
            writeln!(f, "  {}: {}", other.name, other.why)?;
        }
        match self.elsewhere {
            0 => Ok(()),
            1 => writeln!(f, "\n1 grant matches other pods"),
            more => writeln!(f, "\n{more} grants match other pods"),
        }
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, priority, .. } = self;
        let default = if self.default { ", default" } else { "" };
        let (src, dst) = (self.src.join(", "), self.dst.join(", "));
        write!(f, "{name} (priority {priority}{default}): src {src}; dst {dst}")?;
        for rule in &self.rules {
            let mut said = vec![format!("recorder {}", list(&rule.recorder))];
            said.extend(rule.enforce_recorder.then(|| "enforceRecorder".to_owned()));
            said.extend(rule.enable_events.then(|| "enableEvents".to_owned()));
            said.extend(rule.require_ack.map(|level| format!("requireAck {}", level.as_str())));
            said.extend(rule.lead.map(|lead| format!("lead {lead}")));
            said.extend(
                (!rule.mask_flags.is_empty()).then(|| format!("maskFlags {}", list(&rule.mask_flags))),
            );
            said.extend(rule.opaque.map(|opaque| format!("opaque {}", word(opaque))));
            write!(f, "\n     {}", said.join("; "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Follows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failing = if self.fail_closed {
            "closed: what cannot be recorded does not happen"
        } else {
            "open: it happens, and the recording waits in the pod"
        };
        writeln!(f, "  Fails       {failing}")?;
        let mut title = "Recorders";
        for choice in &self.recorders {
            writeln!(f, "  {title:<10}  {choice}")?;
            title = "";
        }
        if self.recorders.is_empty() {
            writeln!(f, "  {title:<10}  none is named")?;
        }
        writeln!(f, "  Events      {}", if self.events { "every request" } else { "no" })?;
        if self.fail_closed {
            let level = self.require_ack.map_or("of any kind", AckLevel::as_str);
            writeln!(f, "  Acks        {level}; {} bytes are shown before they are acknowledged", self.lead)?;
        }
        writeln!(f, "  Masked      {}", list(&self.mask_flags))?;
        let opaque = match (self.opaque, self.fail_closed) {
            (Opaque::Refuse, true) => "refused",
            _ => "pass, with their byte counts recorded",
        };
        write!(f, "  Opaque      upgrades that cannot be inspected: {opaque}")
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tag)?;
        if !self.counts {
            write!(f, " (does not count: its rule does not enforce)")?;
        }
        if self.recorders.is_empty() {
            return write!(f, ": no Recorder has this tag");
        }
        let all: Vec<String> = self.recorders.iter().map(Candidate::to_string).collect();
        write!(f, ": {}", all.join("; "))
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.obstacle {
            Some(obstacle) => write!(f, "{obstacle}"),
            None => {
                let ack = self.ack.map_or_else(String::new, |ack| format!(", acknowledges {}", ack.as_str()));
                write!(f, "recorder {} is ready ({}{ack})", self.name, self.message)
            }
        }
    }
}

fn user(user: &User) -> String {
    format!("{} (groups {})", user.name, user.groups.join(", "))
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

const fn word(opaque: Opaque) -> &'static str {
    match opaque {
        Opaque::Allow => "allow",
        Opaque::Refuse => "refuse",
    }
}
