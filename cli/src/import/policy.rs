//! A policy file as far as recording goes: HuJSON (JSON with comments and trailing commas), with the place of each
//! part. Names of fields are compared without letter case, as its own reader does.

use std::{collections::BTreeMap, fmt};

use jsonc_parser::{
    CollectOptions, ParseOptions,
    ast::{Array, Object, ObjectProp, Value},
    common::Ranged as _,
    parse_to_ast,
};

use super::ImportError;

/// The capability that grants of recordings have.
pub(super) const CAPABILITY: &str = "tailscale.com/cap/kubernetes";

/// A place in the file.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// What a policy file says.
#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) groups: BTreeMap<String, Vec<String>>,
    pub(super) hosts: Vec<String>,
    pub(super) grants: Vec<Entry>,
    /// Sections that have no counterpart and are not empty.
    pub(super) others: Vec<(Place, String)>,
}

/// A text and its place.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) at: Place,
    pub(super) text: String,
}

/// One grant.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: Place,
    pub(super) src: Vec<Item>,
    pub(super) dst: Vec<Item>,
    /// Entries of the Kubernetes capability.
    pub(super) rules: Vec<RawRule>,
    /// Other capabilities.
    pub(super) capabilities: Vec<Item>,
    /// Other fields that are not empty, such as `ip`.
    pub(super) others: Vec<Item>,
}

/// One entry of the Kubernetes capability.
#[derive(Debug)]
pub(super) struct RawRule {
    pub(super) at: Place,
    pub(super) recorder: Vec<Item>,
    pub(super) enforce: bool,
    pub(super) events: bool,
    /// Other keys.
    pub(super) others: Vec<Item>,
}

/// Reads a policy file.
pub(super) fn read(text: &str) -> Result<Policy, ImportError> {
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let parsed =
        parse_to_ast(text, &CollectOptions::default(), &options).map_err(|error| ImportError::Syntax {
            line: error.line_display(),
            column: error.column_display(),
            message: error.kind().to_string(),
        })?;
    let source = Source { text };
    let Some(root) = parsed.value else {
        return Err(ImportError::Syntax { line: 1, column: 1, message: "the file is empty".to_owned() });
    };
    source.policy(source.object("the policy", &root)?)
}

struct Source<'a> {
    text: &'a str,
}

impl Source<'_> {
    fn policy(&self, root: &Object<'_>) -> Result<Policy, ImportError> {
        let mut policy = Policy::default();
        for (name, field) in self.fields(root)? {
            match &*name {
                "groups" => {
                    for group in &self.object(&name, &field.value)?.properties {
                        let members = self.strings(group.name.as_str(), &group.value)?;
                        let members = members.into_iter().map(|member| member.text).collect();
                        let name = group.name.as_str().to_owned();
                        if policy.groups.insert(name.clone(), members).is_some() {
                            let at = self.place(group.start());
                            return Err(ImportError::Twice { at, field: name });
                        }
                    }
                }
                "hosts" => {
                    let hosts = &self.object(&name, &field.value)?.properties;
                    policy.hosts.extend(hosts.iter().map(|host| host.name.as_str().to_owned()));
                }
                "grants" => {
                    for grant in &self.array(&name, &field.value)?.elements {
                        policy.grants.push(self.grant(grant)?);
                    }
                }
                "tagowners" => {}
                _ if is_empty(&field.value) => {}
                _ => policy.others.push((self.place(field.start()), field.name.as_str().to_owned())),
            }
        }
        Ok(policy)
    }

    fn grant(&self, value: &Value<'_>) -> Result<Entry, ImportError> {
        let mut entry = Entry {
            at: self.place(value.start()),
            src: vec![],
            dst: vec![],
            rules: vec![],
            capabilities: vec![],
            others: vec![],
        };
        for (name, field) in self.fields(self.object("a grant", value)?)? {
            match &*name {
                "src" => entry.src = self.strings(&name, &field.value)?,
                "dst" => entry.dst = self.strings(&name, &field.value)?,
                "app" => {
                    for capability in &self.object(&name, &field.value)?.properties {
                        if capability.name.as_str() == CAPABILITY {
                            for rule in &self.array(CAPABILITY, &capability.value)?.elements {
                                entry.rules.push(self.rule(rule)?);
                            }
                        } else {
                            entry.capabilities.push(self.item(capability));
                        }
                    }
                }
                _ if is_empty(&field.value) => {}
                _ => entry.others.push(self.item(field)),
            }
        }
        Ok(entry)
    }

    fn rule(&self, value: &Value<'_>) -> Result<RawRule, ImportError> {
        let mut rule = RawRule {
            at: self.place(value.start()),
            recorder: vec![],
            enforce: false,
            events: false,
            others: vec![],
        };
        for (name, field) in self.fields(self.object("an entry of the capability", value)?)? {
            match &*name {
                "recorder" => rule.recorder = self.strings(&name, &field.value)?,
                "enforcerecorder" => rule.enforce = self.boolean("enforceRecorder", &field.value)?,
                "enableevents" => rule.events = self.boolean("enableEvents", &field.value)?,
                _ if is_empty(&field.value) => {}
                _ => rule.others.push(self.item(field)),
            }
        }
        Ok(rule)
    }

    /// Fields by their name in lower case, without those that are null; none stands twice.
    fn fields<'b, 'c>(
        &self,
        object: &'b Object<'c>,
    ) -> Result<Vec<(String, &'b ObjectProp<'c>)>, ImportError> {
        let mut fields: Vec<(String, &ObjectProp<'_>)> = Vec::new();
        for property in &object.properties {
            let name = property.name.as_str().to_lowercase();
            if fields.iter().any(|(other, _)| *other == name) {
                let field = property.name.as_str().to_owned();
                return Err(ImportError::Twice { at: self.place(property.start()), field });
            }
            fields.push((name, property));
        }
        fields.retain(|(_, property)| property.value.as_null_keyword().is_none());
        Ok(fields)
    }

    fn object<'b, 'c>(&self, field: &str, value: &'b Value<'c>) -> Result<&'b Object<'c>, ImportError> {
        value.as_object().ok_or_else(|| self.wrong(field, value, "an object"))
    }

    fn array<'b, 'c>(&self, field: &str, value: &'b Value<'c>) -> Result<&'b Array<'c>, ImportError> {
        value.as_array().ok_or_else(|| self.wrong(field, value, "a list"))
    }

    fn boolean(&self, field: &str, value: &Value<'_>) -> Result<bool, ImportError> {
        let literal = value.as_boolean_lit().map(|literal| literal.value);
        literal.ok_or_else(|| self.wrong(field, value, "true or false"))
    }

    fn strings(&self, field: &str, value: &Value<'_>) -> Result<Vec<Item>, ImportError> {
        let text = |value: &Value<'_>| {
            let literal =
                value.as_string_lit().ok_or_else(|| self.wrong(field, value, "a list of strings"))?;
            Ok(Item { at: self.place(value.start()), text: literal.value.clone().into_owned() })
        };
        let list = value.as_array().ok_or_else(|| self.wrong(field, value, "a list of strings"))?;
        list.elements.iter().map(text).collect()
    }

    fn item(&self, property: &ObjectProp<'_>) -> Item {
        Item { at: self.place(property.start()), text: property.name.as_str().to_owned() }
    }

    fn wrong(&self, field: &str, value: &Value<'_>, expected: &'static str) -> ImportError {
        ImportError::Type { at: self.place(value.start()), field: field.to_owned(), expected }
    }

    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count().saturating_add(1);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
        Place { line, column }
    }
}

fn is_empty(value: &Value<'_>) -> bool {
    match value {
        Value::NullKeyword(_) => true,
        Value::Object(object) => object.properties.is_empty(),
        Value::Array(array) => array.elements.is_empty(),
        Value::StringLit(text) => text.value.is_empty(),
        Value::BooleanLit(literal) => !literal.value,
        Value::NumberLit(_) => false,
    }
}
