//! The authority: which root signs now, which one comes next, and which one is still trusted.
//!
//! A pure state machine over its own certificates and the time. A root is replaced in two steps: the next one is made
//! and published; only when it has been out for [`TRUST_LEAD`], and is seen to be published, does it sign. The old root
//! then stays trusted until it expires, and signs the new one crosswise, so that pods which were told the old root only
//! go on reaching the control API.

use std::{collections::BTreeMap, fmt};

use super::{
    CertsError,
    mint::{self, validity},
};

/// How long a root is published before it signs.
const TRUST_LEAD: i64 = 86_400;

/// A certificate and its private key, both PEM.
#[derive(Clone, Eq, PartialEq)]
pub struct Keyed {
    /// The certificate, or a chain that begins with it.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// A root that signs no more.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Previous {
    cert: String,
    /// The root of today as the previous one signed it.
    cross: String,
}

/// Roots and intermediate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authority {
    root: Keyed,
    next: Option<Keyed>,
    previous: Option<Previous>,
    intermediate: Keyed,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// Where a certificate cannot be made.
    pub fn found(now: i64) -> Result<Self, CertsError> {
        let root = mint::root(now)?;
        let intermediate = mint::intermediate(&root, now)?;
        Ok(Self { root, next: None, previous: None, intermediate })
    }

    /// The authority as it should be at `now`; `published` says whether the API server is told every
    /// root of [`Self::bundle`]. The same as before where nothing is due.
    ///
    /// # Errors
    /// Where a certificate cannot be read or made.
    pub fn advance(&self, now: i64, published: bool) -> Result<Self, CertsError> {
        let mut then = self.clone();
        then.forget_expired(now)?;
        if then.next.is_none() && validity(&then.root.cert, "root")?.due(now) {
            then.next = Some(mint::root(now)?);
        }
        then.promote(now, published)?;
        if validity(&then.intermediate.cert, "intermediate")?.due(now) {
            then.intermediate = mint::intermediate(&then.root, now)?;
        }
        Ok(then)
    }

    /// Whether a root waits to be published before it signs.
    #[must_use]
    pub fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// All roots to trust, the signing one first, as PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.cert.as_str());
        let previous = self.previous.as_ref().map(|previous| previous.cert.as_str());
        [Some(self.root.cert.as_str()), next, previous].into_iter().flatten().collect()
    }

    /// A server's key and chain: leaf, intermediate, and where a previous root is still trusted, the bridge to it.
    ///
    /// # Errors
    /// Where the certificate cannot be made.
    pub fn issue(&self, names: &[String], now: i64) -> Result<Keyed, CertsError> {
        let leaf = mint::leaf(&self.intermediate, names, now)?;
        let cross = self.previous.as_ref().map_or("", |previous| previous.cross.as_str());
        Ok(Keyed { cert: format!("{}{}{cross}", leaf.cert, self.intermediate.cert), key: leaf.key })
    }

    /// Whether a served chain should be replaced: two thirds of its life are over, it is for other names, or it is not
    /// what this authority would serve.
    #[must_use]
    pub fn due(&self, chain: &str, names: &[String], now: i64) -> bool {
        let cross = self.previous.as_ref().map_or("", |previous| previous.cross.as_str());
        let complete = chain.ends_with(&format!("{}{cross}", self.intermediate.cert));
        let fits = || mint::fits(chain, &self.intermediate.cert, names).unwrap_or(false);
        let fresh = || validity(chain, "leaf").is_ok_and(|life| !life.due(now));
        !(complete && fits() && fresh())
    }

    fn forget_expired(&mut self, now: i64) -> Result<(), CertsError> {
        if let Some(previous) = &self.previous
            && validity(&previous.cert, "previous root")?.until <= now
        {
            self.previous = None;
        }
        Ok(())
    }

    fn promote(&mut self, now: i64, published: bool) -> Result<(), CertsError> {
        let Some(next) = &self.next else { return Ok(()) };
        let out_since = validity(&next.cert, "next root")?.from;
        if !published || now < out_since.saturating_add(TRUST_LEAD) {
            return Ok(());
        }
        let cross = mint::cross(next, &self.root, now)?;
        self.intermediate = mint::intermediate(next, now)?;
        self.previous = Some(Previous { cert: self.root.cert.clone(), cross });
        self.root = next.clone();
        self.next = None;
        Ok(())
    }
}

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("cert", &self.cert).field("key", &"…").finish()
    }
}

// === as entries of a Secret ===

const ROOT: [&str; 2] = ["root.crt", "root.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const INTERMEDIATE: [&str; 2] = ["intermediate.crt", "intermediate.key"];
const PREVIOUS: [&str; 2] = ["previous.crt", "cross.crt"];

impl Authority {
    /// The entries under which it is kept.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<&'static str, &str> {
        let mut entries = BTreeMap::new();
        entries.extend(ROOT.into_iter().zip([self.root.cert.as_str(), &self.root.key]));
        entries
            .extend(INTERMEDIATE.into_iter().zip([self.intermediate.cert.as_str(), &self.intermediate.key]));
        if let Some(next) = &self.next {
            entries.extend(NEXT.into_iter().zip([next.cert.as_str(), &next.key]));
        }
        if let Some(previous) = &self.previous {
            entries.extend(PREVIOUS.into_iter().zip([previous.cert.as_str(), &previous.cross]));
        }
        entries
    }

    /// Reads those entries; `Err` names the one that is missing.
    ///
    /// # Errors
    /// The name of an entry without which there is no authority.
    pub fn from_entries(get: impl Fn(&str) -> Option<String>) -> Result<Self, &'static str> {
        let pair = |[cert, key]: [&'static str; 2]| -> Result<Keyed, &'static str> {
            Ok(Keyed { cert: get(cert).ok_or(cert)?, key: get(key).ok_or(key)? })
        };
        let optional = |[cert, key]: [&'static str; 2]| get(cert).map(|_| pair([cert, key])).transpose();
        Ok(Self {
            root: pair(ROOT)?,
            intermediate: pair(INTERMEDIATE)?,
            next: optional(NEXT)?,
            previous: optional(PREVIOUS)?.map(|found| Previous { cert: found.cert, cross: found.key }),
        })
    }
}

#[cfg(test)]
mod tests;
