//! An event as a line, which has a cap.

use super::{Event, capped};

/// Cap on a line with its newline, in bytes. What spools and recorders hold at a time is no less.
pub const MAX_LINE: usize = 192 << 10;
/// How far texts are cut, in bytes, until the line fits; lists of them are cut to one for [`EACH`] bytes of that.
const CUTS: [usize; 4] = [16 << 10, 4 << 10, 1 << 10, 64];
const EACH: usize = 32;

impl Event {
    /// The event as JSON with a newline, at most [`MAX_LINE`] bytes: texts that would make it longer are cut, and the
    /// event says so.
    #[must_use]
    pub fn into_line(mut self) -> Vec<u8> {
        let mut line = written(&self);
        for cut in CUTS {
            if line.len() <= MAX_LINE {
                break;
            }
            self.cut(cut);
            line = written(&self);
        }
        line
    }

    fn cut(&mut self, most: usize) {
        self.podwitness.truncated = true;
        let (info, asked, ours) = (&mut self.kubernetes, &mut self.request, &mut self.podwitness);
        let caller = &mut ours.caller;
        for text in [
            &mut self.user_agent,
            &mut asked.path,
            &mut info.path,
            &mut info.verb,
            &mut info.api_group,
            &mut info.api_version,
            &mut info.namespace,
            &mut info.resource,
            &mut info.subresource,
            &mut info.name,
            &mut info.field_selector,
            &mut info.label_selector,
            &mut self.source.node_user,
            &mut caller.authenticated.name,
            &mut caller.effective.name,
        ] {
            *text = capped(text, most);
        }
        for list in [&mut info.parts, &mut caller.authenticated.groups, &mut caller.effective.groups] {
            cut_list(list, most);
        }
        while asked.query_parameters.len() > most / EACH {
            asked.query_parameters.pop_last();
        }
        asked.query_parameters = std::mem::take(&mut asked.query_parameters)
            .into_iter()
            .map(|(name, value)| (capped(&name, most), value))
            .collect();
        for values in asked.query_parameters.values_mut() {
            cut_list(values, most);
        }
        if let Some(body) = &mut ours.body {
            cut_list(&mut body.touched.fields, most);
        }
    }
}

/// What is left of a list is, all together, no longer than a text.
fn cut_list(list: &mut Vec<String>, most: usize) {
    list.truncate(most / EACH);
    let mut left = most;
    list.retain_mut(|text| {
        *text = capped(text, left);
        left = left.saturating_sub(text.len());
        left > 0
    });
}

/// A type of ours always becomes JSON.
fn written(event: &Event) -> Vec<u8> {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Asked, Sent, Touched, Witness},
        identity::{Caller, User},
        request_info::RequestInfo,
    };

    fn event(target: &str, agent: &str, groups: usize) -> Event {
        let user = User { name: "u".repeat(groups), groups: vec!["g".repeat(100); groups] };
        Event {
            request: Asked::new("GET", target, &[]),
            kubernetes: RequestInfo::parse("GET", target).unwrap_or_default(),
            user_agent: agent.to_owned(),
            podwitness: Witness {
                caller: Caller { authenticated: user.clone(), effective: user, verified: true },
                body: Some(Sent {
                    touched: Touched { fields: vec!["f".repeat(200); groups], ..Touched::default() },
                    ..Sent::default()
                }),
                ..Witness::default()
            },
            ..Event::default()
        }
    }

    #[test]
    fn an_ordinary_event_is_written_whole() {
        let event = event("/api/v1/pods?limit=500", "kubectl", 3);
        let line = event.clone().into_line();
        assert_eq!(serde_json::from_slice::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn whatever_a_client_sends_becomes_a_line_that_is_taken() {
        let control = "%01".repeat(21_000);
        let many: String = (0..9000).map(|n| format!("a{n}&")).collect();
        let mut cut = 0;
        for (target, agent, groups) in [
            (format!("/api/v1/namespaces/{control}"), "\u{1}".repeat(65_000), 1),
            (format!("/api/v1/pods?labelSelector={control}"), String::new(), 5000),
            (format!("/api/v1/pods?{many}"), String::new(), 0),
            (format!("/api/v1/pods?command={}", "x&command=".repeat(6000)), String::new(), 0),
            (format!("/api/v1/{}", "a/".repeat(32_000)), String::new(), 0),
        ] {
            let line = event(&target, &agent, groups).into_line();
            assert!(line.len() <= MAX_LINE, "{}", line.len());
            let event: Event = serde_json::from_slice(&line).unwrap();
            cut += u32::from(event.podwitness.truncated);
        }
        assert!(cut > 0, "nothing was too long");
    }
}
