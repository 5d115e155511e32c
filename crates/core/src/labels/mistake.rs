//! Keys that were meant for Podwitness and have no effect: unknown ones, and known ones in the wrong place.

use std::fmt;

use super::{DOMAIN, Field, Holder, KEYS, KnownKey, TAG, TAG_PREFIX};
use crate::nearest::{distance, nearest};

/// What [`DOMAIN`] begins with, and what keys of other forms contain that are meant for it.
const NAME: &str = "podwitness";
/// Characters by which a domain may differ from [`DOMAIN`] and still be meant for it.
const MAX_DISTANCE: usize = 3;
/// Longest part of a key that a message repeats, in characters.
const SHOWN: usize = 80;

/// A key without effect. Its [`Display`](fmt::Display) names the remedy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyMistake {
    /// The key as it stands in the object.
    pub key: String,
    /// Where it stands.
    pub field: Field,
    /// On what.
    pub holder: Holder,
    /// The same key in another place, or the nearest known one.
    pub meant: Option<KnownKey>,
}

/// What is wrong with a key; `None` for one that has an effect where it stands, and for those of other programs.
#[must_use]
pub fn key_mistake(holder: Holder, field: Field, key: &str) -> Option<KeyMistake> {
    let known = known(key);
    if known.is_some_and(|known| known.field == field && known.holders.contains(&holder)) {
        return None;
    }
    (known.is_some() || looks_like_ours(key)).then(|| KeyMistake {
        key: key.to_owned(),
        field,
        holder,
        meant: known.or_else(|| nearest_key(key)),
    })
}

/// Whether a key was meant for Podwitness: its domain is [`DOMAIN`], one below it, or near it.
#[must_use]
pub fn looks_like_ours(key: &str) -> bool {
    let key = key.to_lowercase();
    let domain = key.split_once('/').map_or(&*key, |(domain, _)| domain);
    domain.replace('-', "").contains(NAME)
        || key.contains('/') && distance(domain, DOMAIN).is_some_and(|distance| distance <= MAX_DISTANCE)
}

fn known(key: &str) -> Option<KnownKey> {
    if key.strip_prefix(TAG_PREFIX).is_some_and(|name| !name.is_empty()) {
        return Some(TAG);
    }
    KEYS.into_iter().find(|known| known.key == key && *known != TAG)
}

fn nearest_key(key: &str) -> Option<KnownKey> {
    let (domain, name) = match key.split_once('/') {
        Some((domain, name)) => (domain, name),
        // Written without a slash: `podwitness-inject`, `podwitness.inject`.
        None => ("", key.get(NAME.len()..)?.trim_start_matches(['-', '.', '_'])),
    };
    if domain.starts_with("tag") && !name.is_empty() {
        return Some(TAG);
    }
    let names = KEYS.iter().filter_map(|known| known.key.split_once('/')).map(|(_, name)| name);
    let name = nearest(name, names)?;
    KEYS.into_iter().find(|known| known.key.split_once('/').is_some_and(|(_, known)| known == name))
}

impl fmt::Display for KeyMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: String = self.key.chars().take(SHOWN).collect();
        write!(f, "{} {key} has no effect on a {}", self.field.as_str(), self.holder.as_str())?;
        let Some(meant) = self.meant else { return write!(f, ": there is no such key") };
        let holders: Vec<&str> = meant.holders.iter().map(|holder| holder.as_str()).collect();
        let (field, holders) = (meant.field.as_str(), holders.join(" or "));
        let is_same = meant.key == self.key || meant == TAG && self.key.starts_with(TAG_PREFIX);
        if is_same {
            let article = if meant.field == Field::Label { "a" } else { "an" };
            write!(f, ": it is {article} {field} of the {holders}")
        } else {
            write!(f, "; did you mean {field} {} of the {holders}?", meant.key)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(holder: Holder, field: Field, key: &str) -> Option<String> {
        key_mistake(holder, field, key).map(|mistake| mistake.to_string())
    }

    #[test]
    fn every_known_key_has_an_effect_in_its_place_and_in_no_other() {
        for known in KEYS {
            for holder in [Holder::Namespace, Holder::Pod, Holder::Workload] {
                for field in [Field::Label, Field::Annotation] {
                    let fits = known.field == field && known.holders.contains(&holder);
                    let found = said(holder, field, known.key);
                    assert_eq!(found.is_none(), fits, "{known:?} {holder:?} {field:?}: {found:?}");
                    assert!(found.is_none_or(|found| found.contains(": it is a")), "{known:?}");
                }
            }
        }
    }

    #[test]
    fn no_key_is_listed_twice() {
        let mut keys: Vec<&str> = KEYS.iter().map(|known| known.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), KEYS.len());
    }

    #[test]
    fn unknown_keys_are_told_with_the_nearest_known_one() {
        use Field::{Annotation, Label};
        use Holder::{Namespace, Pod, Workload};
        let inject = "did you mean label podwitness.dev/inject of the Namespace?";
        for (holder, field, key, says) in [
            (Namespace, Label, "podwitness.dev/injection", inject),
            (Namespace, Annotation, "podwitness.dev/injection", inject),
            (Namespace, Label, "podwitness.io/inject", inject),
            (Namespace, Label, "podwitness.com/inject", inject),
            (Namespace, Label, "podwitnes.dev/inject", inject),
            (Namespace, Label, "pod-witness.dev/inject", inject),
            (Namespace, Label, "podwitness/inject", inject),
            (Namespace, Label, "pod-witness/inject", inject),
            (Namespace, Label, "podwitness-injection", inject),
            (Namespace, Label, "Podwitness.dev/Inject", inject),
            (Namespace, Label, "inject.podwitness.dev/inject", inject),
            (
                Namespace,
                Annotation,
                "podwitness.dev/bypass",
                "annotation podwitness.dev/bypass-until of the Namespace",
            ),
            (Namespace, Annotation, "podwitness.dev/excempt", "annotation podwitness.dev/exempt"),
            (Namespace, Label, "tags.podwitness.dev/pci", "label tag.podwitness.dev/NAME of the Namespace"),
            (
                Pod,
                Annotation,
                "podwitness.dev/memory",
                "podwitness.dev/memory-request of the Pod or Namespace",
            ),
            (Pod, Annotation, "podwitness.dev/loglevel", "podwitness.dev/log-level"),
            (Namespace, Label, "podwitness.dev/sidecar-image", "there is no such key"),
            (Namespace, Label, "podwitness.dev/", "there is no such key"),
            (Namespace, Label, "podwitness", "there is no such key"),
            // Known ones in the wrong place.
            (
                Namespace,
                Annotation,
                "podwitness.dev/inject",
                "on a Namespace: it is a label of the Namespace",
            ),
            (Pod, Label, "podwitness.dev/inject", "on a Pod: it is a label of the Namespace"),
            (Namespace, Label, "podwitness.dev/exempt", "it is an annotation of the Namespace"),
            (Pod, Annotation, "podwitness.dev/bypass-until", "it is an annotation of the Namespace"),
            (Namespace, Annotation, "tag.podwitness.dev/pci", "it is a label of the Namespace"),
            (
                Workload,
                Annotation,
                "podwitness.dev/memory-limit",
                "on a workload: it is an annotation of the Pod or Namespace",
            ),
        ] {
            let found = said(holder, field, key).unwrap_or_default();
            assert!(found.contains(says), "{holder:?} {field:?} {key}: {found}");
            assert!(found.starts_with(&format!("{} {key} has no effect", field.as_str())), "{found}");
        }
    }

    #[test]
    fn keys_of_others_are_left_alone() {
        for key in [
            "app",
            "app.kubernetes.io/part-of",
            "pod-security.kubernetes.io/enforce",
            "sidecar.istio.io/inject",
            "kubectl.kubernetes.io/last-applied-configuration",
            "tag.podwitness.dev/pci",
            "inject",
            "example.dev/inject",
        ] {
            assert_eq!(said(Holder::Namespace, Field::Label, key), None, "{key}");
        }
    }

    #[test]
    fn a_long_key_is_cut() {
        let key = format!("podwitness.dev/{}", "x".repeat(4000));
        assert!(said(Holder::Pod, Field::Label, &key).unwrap().len() < 200);
    }
}
