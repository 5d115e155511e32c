//! Which pods a namespace leaves out of injection: the annotation [`labels::EXEMPT`](crate::labels::EXEMPT) of the
//! Namespace.
//!
//! Terms are `KEY` or `KEY=VALUE`, separated by commas; white space around a term does not count. A pod is left out if
//! every term holds for its labels. The same stands, as CEL, in `manifests/policies`.

/// Whether pods with these labels are left out. An annotation without terms leaves no pod out.
#[must_use]
pub fn exempts<'a>(annotation: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    !annotation.trim().is_empty()
        && annotation.split(',').map(str::trim).all(|term| match term.split_once('=') {
            Some((key, value)) => label(key) == Some(value),
            None => label(term).is_some(),
        })
}

/// Terms that hold for no pod, because they are neither `KEY` nor `KEY=VALUE`. One of them and no pod is left out.
#[must_use]
pub fn mistakes(annotation: &str) -> Vec<String> {
    if annotation.trim().is_empty() {
        return Vec::new();
    }
    let terms = annotation.split(',').map(str::trim);
    terms.filter(|term| !is_term(term)).map(ToOwned::to_owned).collect()
}

fn is_term(term: &str) -> bool {
    let (key, value) = term.split_once('=').unwrap_or((term, ""));
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    let is_domain =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
    domain.is_none_or(is_domain) && is_name(name) && (value.is_empty() || is_name(value))
}

/// As Kubernetes writes names of labels and their values (`k8s.io/apimachinery/pkg/util/validation`).
fn is_name(text: &str) -> bool {
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && outer(text.chars().next())
        && outer(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_left_out_where_every_term_holds() {
        let pod = |key: &str| match key {
            "app" => Some("batch"),
            "tier" => Some("low"),
            _ => None,
        };
        for (terms, exempt) in [
            ("app=batch", true),
            ("app=batch, tier=low", true),
            ("app=batch,tier", true),
            ("app=batch,tier=high", false),
            ("other", false),
            ("app=", false),
            ("", false),
            (" ", false),
            ("app=batch,", false),
        ] {
            assert_eq!(exempts(terms, pod), exempt, "{terms:?}");
        }
    }

    #[test]
    fn terms_that_hold_for_no_pod_are_named() {
        for good in ["", " ", "app", "app=batch", "app=", "example.com/app=a.b_c-1, tier"] {
            assert!(mistakes(good).is_empty(), "{good:?}");
        }
        for (annotation, wrong) in [
            ("app==batch", "app==batch"),
            ("app!=batch", "app!=batch"),
            ("!app", "!app"),
            ("app in (a)", "app in (a)"),
            ("app=batch,", ""),
            ("a/b/c", "a/b/c"),
            ("/app", "/app"),
            ("app=-x", "app=-x"),
            ("app = x", "app = x"),
        ] {
            assert_eq!(mistakes(annotation), [wrong], "{annotation:?}");
        }
    }
}
