//! From what a policy file says to grants, with a note for all that changes on the way.

use std::{collections::BTreeSet, net::IpAddr};

use aws_lc_rs::digest::{SHA256, digest};
use podwitness_core::grant::{App, Grant, GrantSpec, Rule, dst_matches_pods, src_matches_anyone};
use podwitness_crd::DEFAULT_TAG;

use super::{
    Carried, ImportError, Imported, Kind, MAX_SRC, Note, Options,
    policy::{CAPABILITY, Entry, Item, Place, Policy, RawRule},
};

/// Caps of a `Grant` object on the rules, and on the recorders of one.
const MAX_RULES: usize = 32;
const MAX_RECORDERS: usize = 16;
/// Longest part of a name that is made from `src`.
const MAX_STEM: usize = 40;

const SRC_HINT: &str = "write *, a user, group:NAME or serviceaccount:NAMESPACE/NAME";
const DST_HINT: &str = "write *, namespace:NAME, pod:NAMESPACE/NAME or tag:NAME";

/// Carries a policy over.
pub(super) fn convert(policy: &Policy, options: &Options) -> Result<Imported, ImportError> {
    let mut work = Work {
        policy,
        options,
        out: Imported::default(),
        names: BTreeSet::new(),
        users: false,
        tags: BTreeSet::new(),
    };
    for (at, section) in &policy.others {
        work.note(*at, Kind::LeftOut, section_note(section));
    }
    for entry in &policy.grants {
        work.grant(entry)?;
    }
    work.order();
    work.hints();
    let Imported { grants, mut notes } = work.out;
    notes.sort_by_key(|note| (note.at.is_none(), note.at));
    notes.dedup();
    Ok(Imported { grants, notes })
}

struct Work<'a> {
    policy: &'a Policy,
    options: &'a Options,
    out: Imported,
    names: BTreeSet<String>,
    /// Whether any user was carried over by name.
    users: bool,
    /// Tags of recorders.
    tags: BTreeSet<String>,
}

impl Work<'_> {
    fn grant(&mut self, entry: &Entry) -> Result<(), ImportError> {
        if entry.rules.is_empty() {
            self.note(entry.at, Kind::LeftOut, format!("this grant has no {CAPABILITY}: nothing to record"));
            return Ok(());
        }
        for other in &entry.others {
            self.note(other.at, kind_of(&other.text), grant_note(&other.text));
        }
        for capability in &entry.capabilities {
            let message = format!("capability {} has nothing to do with recording", capability.text);
            self.note(capability.at, Kind::LeftOut, message);
        }
        let mut rules = Vec::new();
        for rule in &entry.rules {
            rules.extend(self.rule(rule)?);
        }
        if rules.is_empty() {
            let message = "this grant asks for no recording, and is left out: it would stand in the way of the default \
                           grant";
            self.note(entry.at, Kind::LeftOut, message.to_owned());
            return Ok(());
        }
        if rules.len() > MAX_RULES {
            let at = entry.rules.get(MAX_RULES).map_or(entry.at, |rule| rule.at);
            return Err(ImportError::TooMany { at, what: "too many entries", cap: MAX_RULES });
        }
        let mut src = Vec::new();
        for item in &entry.src {
            src.extend(self.src(item)?);
        }
        let mut dst = Vec::new();
        for item in &entry.dst {
            dst.extend(self.dst(item)?);
        }
        let (src, dst) = (tidy(src), tidy(dst));
        for (field, list) in [("src", &src), ("dst", &dst)] {
            if list.is_empty() {
                let message = format!("this grant has no {field} left, and is left out");
                self.note(entry.at, Kind::LeftOut, message);
                return Ok(());
            }
        }
        let stem = name(entry);
        for src in src.chunks(MAX_SRC) {
            let name = self.free_name(&stem);
            let app = App { kubernetes: rules.clone() };
            let spec = GrantSpec { src: src.to_vec(), dst: dst.clone(), app, ..GrantSpec::default() };
            self.out.grants.push(Carried { at: entry.at, grant: Grant { name, spec } });
        }
        Ok(())
    }

    /// A rule; none where it asks for no recording.
    fn rule(&mut self, raw: &RawRule) -> Result<Option<Rule>, ImportError> {
        for other in &raw.others {
            self.note(other.at, Kind::LeftOut, rule_note(&other.text));
        }
        if raw.recorder.len() > MAX_RECORDERS {
            return Err(ImportError::TooMany { at: raw.at, what: "too many recorders", cap: MAX_RECORDERS });
        }
        let mut recorder: Vec<String> = Vec::new();
        for item in &raw.recorder {
            if !is_tag(&item.text) {
                return Err(ImportError::Type {
                    at: item.at,
                    field: format!("recorder {}", item.text),
                    expected: "a tag, written tag:NAME",
                });
            }
            recorder.push(item.text.clone());
        }
        if recorder.is_empty() && raw.enforce {
            let message = format!(
                "enforceRecorder without a recorder refuses every session there; here it fails closed with \
                 {DEFAULT_TAG}"
            );
            self.note(raw.at, Kind::Wider, message);
            recorder.push(DEFAULT_TAG.to_owned());
        } else if recorder.is_empty() {
            let message = "this entry names no recorder, and asks for no recording".to_owned();
            self.note(raw.at, Kind::LeftOut, message);
            return Ok(None);
        }
        self.tags.extend(recorder.iter().cloned());
        Ok(Some(Rule {
            recorder: tidy(recorder),
            enforce_recorder: raw.enforce,
            enable_events: raw.events,
            ..Rule::default()
        }))
    }

    fn src(&mut self, item: &Item) -> Result<Vec<String>, ImportError> {
        if let Some(mapped) = self.mapped(item, "src", src_matches_anyone, SRC_HINT)? {
            return Ok(mapped);
        }
        let text = &item.text;
        if text == "*" {
            return Ok(vec![text.clone()]);
        }
        if text.starts_with("group:") {
            return Ok(self.group(item));
        }
        if is_login(text) {
            self.users = true;
            return Ok(vec![text.clone()]);
        }
        let is_address = text.split('/').next().is_some_and(|text| text.parse::<IpAddr>().is_ok());
        let what = match text.split_once(':') {
            Some(("autogroup", _)) => "who is in it is known only there",
            Some(("tag", _)) => "a device has no user here",
            Some(("ipset" | "host" | "svc", _)) => "an address is no user",
            _ if is_address || self.policy.hosts.contains(text) => "an address is no user",
            _ => "it is no user or group that a cluster could know",
        };
        self.wider(item, "src", what);
        Ok(vec!["*".to_owned()])
    }

    /// The members of a group; of one that the file does not hold, everyone.
    fn group(&mut self, item: &Item) -> Vec<String> {
        if self.options.keep_groups {
            return vec![item.text.clone()];
        }
        let mut members = Vec::new();
        if !self.members(&item.text, &mut BTreeSet::new(), &mut members) {
            self.wider(item, "src", "the file does not say who is in it");
            return vec!["*".to_owned()];
        }
        let message = format!(
            "{0} becomes its {1} members as of today; if the cluster's identity provider delivers the group, keep it by \
             --map {0}={0}",
            item.text,
            members.len()
        );
        self.note(item.at, Kind::Hint, message);
        let mut src = Vec::new();
        for member in members {
            if is_login(&member) {
                self.users = true;
                src.push(member);
            } else {
                let message =
                    format!("member {member} of {} is no user that a cluster could know", item.text);
                self.note(item.at, Kind::Wider, format!("src {} becomes *: {message}", item.text));
                src.push("*".to_owned());
            }
        }
        src
    }

    /// Gathers members, also of groups within; `false` where one of them is not in the file.
    fn members(&self, group: &str, seen: &mut BTreeSet<String>, found: &mut Vec<String>) -> bool {
        if !seen.insert(group.to_owned()) {
            return true;
        }
        let Some(members) = self.policy.groups.get(group) else { return false };
        members.iter().all(|member| {
            if member.starts_with("group:") {
                return self.members(member, seen, found);
            }
            if !found.contains(member) {
                found.push(member.clone());
            }
            true
        })
    }

    fn dst(&mut self, item: &Item) -> Result<Vec<String>, ImportError> {
        if let Some(mapped) = self.mapped(item, "dst", dst_matches_pods, DST_HINT)? {
            return Ok(mapped);
        }
        if item.text != "*" {
            self.wider(item, "dst", "it names a way into a cluster, and here dst names pods");
        }
        Ok(vec!["*".to_owned()])
    }

    fn mapped(
        &mut self,
        item: &Item,
        field: &'static str,
        means: fn(&str) -> bool,
        hint: &'static str,
    ) -> Result<Option<Vec<String>>, ImportError> {
        let Some(to) = self.options.map.get(&item.text) else { return Ok(None) };
        if to.is_empty() {
            self.note(item.at, Kind::LeftOut, format!("{field} {} is left out, as --map says", item.text));
            return Ok(Some(vec![]));
        }
        if !means(to) {
            let (from, to) = (item.text.clone(), to.clone());
            return Err(ImportError::Map { at: item.at, from, to, field, hint });
        }
        Ok(Some(vec![to.clone()]))
    }

    fn wider(&mut self, item: &Item, field: &str, why: &str) {
        let example = if field == "src" { "group:NAME" } else { "namespace:NAME" };
        let message = format!("{field} {0} becomes *: {why}; say better by --map {0}={example}", item.text);
        self.note(item.at, Kind::Wider, message);
    }

    fn note(&mut self, at: Place, kind: Kind, message: String) {
        self.out.notes.push(Note { at: Some(at), kind, message });
    }

    /// Priorities keep the order of the file, in which recorders are tried.
    fn order(&mut self) {
        let count = self.out.grants.len();
        if count > 1 {
            for (index, carried) in self.out.grants.iter_mut().enumerate() {
                carried.grant.spec.priority = i32::try_from(count.saturating_sub(index)).unwrap_or(i32::MAX);
            }
        }
    }

    /// A name that no other grant has.
    fn free_name(&mut self, stem: &str) -> String {
        let later = (2..).map(|n: u32| format!("{stem}-{n}"));
        let mut names = std::iter::once(stem.to_owned()).chain(later);
        let name = names.find(|name| !self.names.contains(name)).unwrap_or_else(|| stem.to_owned());
        self.names.insert(name.clone());
        name
    }

    fn hints(&mut self) {
        let mut hint = |message: &str| {
            self.out.notes.push(Note { at: None, kind: Kind::Hint, message: message.to_owned() });
        };
        if self.users {
            hint(
                "logins are carried over as names of users; they have to be what the API server calls these people \
                 (kubectl auth whoami)",
            );
        }
        let rules = || self.out.grants.iter().flat_map(|carried| &carried.grant.spec.app.kubernetes);
        let without_events = rules().any(|rule| !rule.enable_events);
        if !self.out.grants.is_empty() {
            hint(
                "programs and people who use a pod's own token are service accounts, which no policy file names; the \
                 installed default grant goes on to record them",
            );
        }
        if !self.out.grants.is_empty() {
            let tags: Vec<&str> = self.tags.iter().map(String::as_str).collect();
            hint(&format!("a Recorder has to have each of these tags: {}", tags.join(", ")));
        }
        if without_events {
            hint(
                "the installed default grant, which asks for events, no longer applies where one of these does; set \
                 enableEvents where events are wanted",
            );
        }
    }
}

/// What happens to a field of a grant. A condition that is left out makes the grant wider.
fn kind_of(field: &str) -> Kind {
    if field.eq_ignore_ascii_case("srcPosture") { Kind::Wider } else { Kind::LeftOut }
}

fn grant_note(field: &str) -> String {
    match &*field.to_lowercase() {
        "ip" => "ip is about the network; who may reach the API server is not decided here".to_owned(),
        "srcposture" => "srcPosture is not looked at: the grant applies from every device".to_owned(),
        "via" => "via is about the network: there is no route to choose".to_owned(),
        _ => format!("{field} has no counterpart"),
    }
}

fn rule_note(key: &str) -> String {
    match &*key.to_lowercase() {
        "impersonate" => {
            "impersonate has no effect: people come with their own credentials; give the groups rights by RBAC".to_owned()
        }
        "recorderaddrs" => "recorderAddrs is found out by the control plane".to_owned(),
        _ => format!("{key} is no key of the capability, and has no effect there either"),
    }
}

fn section_note(section: &str) -> String {
    match &*section.to_lowercase() {
        "acls" => "acls are about the network; nothing of them is recorded".to_owned(),
        "ssh" => "ssh has its own recordings, which are not those of Kubernetes".to_owned(),
        "ipsets" => "ipsets are addresses; where a grant names one as src it becomes *".to_owned(),
        "postures" => {
            "postures are about devices; a grant that wants one applies from every device".to_owned()
        }
        _ => format!("{section} has no counterpart"),
    }
}

/// A name that stays as it is while `src` and `dst` do: readable, and told apart by their hash.
fn name(entry: &Entry) -> String {
    let mut items: Vec<Vec<u8>> = Vec::new();
    for (field, list) in [("src", &entry.src), ("dst", &entry.dst)] {
        items.extend(list.iter().map(|item| format!("{field}\0{}\0", item.text).into_bytes()));
    }
    items.sort_unstable();
    let hash = digest(&SHA256, &items.concat());
    let hash: String = hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let first = entry.src.first().map_or("", |item| item.text.as_str());
    let stem = first.strip_prefix("group:").or_else(|| first.strip_prefix("user:")).unwrap_or(first);
    let stem = if stem == "*" { "everyone" } else { stem };
    let stem = stem.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let words: Vec<&str> = stem.split('-').filter(|word| !word.is_empty()).collect();
    let stem: String = words.join("-").chars().take(MAX_STEM).collect();
    if stem.is_empty() {
        format!("policy-{hash}")
    } else {
        format!("policy-{}-{hash}", stem.trim_end_matches('-'))
    }
}

/// Without repeats; `*` stands for all others.
fn tidy(mut items: Vec<String>) -> Vec<String> {
    if items.iter().any(|item| item == "*") {
        return vec!["*".to_owned()];
    }
    let mut seen = BTreeSet::new();
    items.retain(|item| seen.insert(item.clone()));
    items
}

/// Whether it is the login of one person, such as `ana@example.com` or `user:ana@example.com`.
fn is_login(text: &str) -> bool {
    let name = text.strip_prefix("user:").unwrap_or(text);
    name.contains('@') && !name.contains(['*', ':', '/', ' '])
}

fn is_tag(text: &str) -> bool {
    text.strip_prefix("tag:").is_some_and(|name| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    })
}
