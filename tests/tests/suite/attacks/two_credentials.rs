//! A second credential, or a protocol, in bytes that are no ASCII: a header is read as the API server reads it, or the
//! request is refused.

use anyhow::Result;

use crate::evasion::{End, on_stage};

use End::{Declined, Recorded, Refused};

/// The token as the API server finds it in the header, with what stands around it.
const OFFERS: [(&str, &str); 4] = [
    ("beside a word that is no ASCII", "BEARER, caf\u{e9}"),
    ("behind a word that is no ASCII", "\u{ff}, BEARER"),
    ("behind a space that is no ASCII", "\u{a0}BEARER"),
    ("before one", "BEARER\u{2003},x"),
];

/// Two credentials in one request, and one that stands beside bytes that are no ASCII: a name, and how it is spoken.
pub(super) fn ways() -> Vec<(String, String, End)> {
    let mut ways = Vec::new();
    for (name, offer) in OFFERS {
        let how = format!("--protocol v5.channel.k8s.io --offer '{offer}' --path EXEC");
        ways.push((format!("two, one {name}"), how.clone(), Refused));
        ways.push((format!("one {name}"), format!("--bearer none {how}"), Recorded));
    }
    let twice =
        "--bearer none --protocol v5.channel.k8s.io --offer 'BEARER' --offer '\u{ff}, BEARER' --path EXEC";
    ways.push(("two as subprotocols".into(), twice.into(), Refused));
    let bytes = r#"--protocol v5.channel.k8s.io --offer "$(printf 'BEARER, \377')" --path EXEC"#;
    ways.push(("two, one beside a byte that is no text".into(), bytes.into(), Refused));
    ways
}

#[tokio::test]
async fn a_second_credential_is_seen_whatever_bytes_stand_beside_it() -> Result<()> {
    on_stage(async |stage| {
        let ways = ways();
        let ways: Vec<_> = ways.iter().map(|(name, how, end)| (&**name, &**how, *end)).collect();
        stage.try_all(&ways).await
    })
    .await
}

/// The API server compares without regard to letter case, in all of Unicode.
#[tokio::test]
async fn no_spelling_of_websocket_goes_round() -> Result<()> {
    on_stage(async |stage| {
        stage
            .try_all(&[
                (
                    "a kelvin sign, the fourth version",
                    "--upgrade 'websoc\u{212a}et' --protocol v4.channel.k8s.io --path EXEC",
                    Recorded,
                ),
                (
                    "a kelvin sign, the fifth version",
                    "--upgrade 'websoc\u{212a}et' --protocol v5.channel.k8s.io --path EXEC",
                    Recorded,
                ),
                (
                    "a long s",
                    "--upgrade 'web\u{17f}ocket' --protocol v4.channel.k8s.io --path EXEC",
                    Declined,
                ),
                (
                    "bytes beside the word",
                    "--connection 'caf\u{e9}, Upgrade' --protocol v5.channel.k8s.io --path EXEC",
                    Recorded,
                ),
            ])
            .await
    })
    .await
}

/// A token that something follows is the same token, and its session that of the same user.
#[tokio::test]
async fn a_token_before_bytes_that_are_no_ascii_names_its_user() -> Result<()> {
    on_stage(async |stage| {
        let token = "$(cat /var/run/secrets/kubernetes.io/serviceaccount/token)";
        let how = format!(
            "--bearer none --header \"Authorization: Bearer {token} caf\u{e9}\" --protocol v5.channel.k8s.io --path EXEC"
        );
        stage.try_all(&[("a token and more", &how, Recorded)]).await?;
        stage.names_its_user("a token and more").await
    })
    .await
}
