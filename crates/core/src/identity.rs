//! Who makes a request: the authenticated user and, where the request impersonates, the effective one.

use serde::{Deserialize, Serialize};

/// Prefix of the user names of service accounts, followed by `namespace:name`.
pub const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// A user as the API server knows it.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct User {
    /// User name, such as `system:serviceaccount:shop:till`.
    pub name: String,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl User {
    /// Namespace and name, where the user is a service account.
    #[must_use]
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')
    }
}

/// The caller of a request.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Caller {
    /// Whom the credential belongs to.
    pub authenticated: User,
    /// On whose behalf the request is made: the impersonated user, else the authenticated one.
    pub effective: User,
    /// Whether the API server said so (`SelfSubjectReview`). Otherwise the names are claims of the credential,
    /// and every grant's `src` matches, so that the strictest wins.
    pub verified: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_known_by_its_user_name() {
        let user = User { name: "system:serviceaccount:shop:till".into(), groups: vec![] };
        assert_eq!(user.service_account(), Some(("shop", "till")));
        assert_eq!(User { name: "ana".into(), groups: vec![] }.service_account(), None);
    }
}
