//! Rules of the API server for a Recorder, each with a message that names the remedy.

use schemars::Schema;

use crate::schema;

/// CEL: the name is one for a Service, and short enough for the labels that a StatefulSet gives its pods.
pub const NAME: &str =
    "self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')";
/// What to say where it is not.
pub const NAME_MESSAGE: &str = "the name of a Recorder is also that of its Service and its StatefulSet: at most 52 lower-case letters, digits and hyphens, a letter first";

const SECRET_OF_OURS: &str = "!(self.name in ['podwitness-ca', 'podwitness-issuer', 'podwitness-admit-tls', 'podwitness-control-tls'])";
const SECRET_OF_OURS_MESSAGE: &str =
    "this Secret holds keys of the installation itself, which no recorder may have; name one of your own";

/// CEL: a recorder that runs elsewhere says nothing of what is made for one that runs here. What has a default is
/// compared with it.
const ELSEWHERE: &str = "!has(self.external) || (!has(self.storage) && !has(self.statefulSet) && !has(self.image) && self.replicas == 1 && !self.enableUI)";
const ELSEWHERE_MESSAGE: &str = "external names a recorder that runs elsewhere: leave storage, statefulSet, image, replicas and enableUI away, which are for one that runs here; or leave external away";

/// Caps and rules.
pub(super) fn constrain(spec: &mut Schema) {
    schema::never_null(spec, &["external"]);
    schema::rule(spec, &[], ELSEWHERE, ELSEWHERE_MESSAGE);
    schema::list(spec, &["tags"], 64, 128);
    schema::rule(spec, &["tags"], "self.size() > 0", "a recorder without a tag can be named by no grant");
    schema::rule(spec, &["tags"], schema::TAGS, schema::TAGS_MESSAGE);
    schema::int32(spec, &["replicas"], 0, 256);
    schema::text(spec, &["image"], 1, 1024);
    schema::text(spec, &["tailnet"], 0, 253);
    schema::rule(spec, &["tailnet"], "self == oldSelf", "Recorder tailnet is immutable");
    schema::rule(
        spec,
        &[],
        "self.replicas <= 1 || (has(self.storage) && has(self.storage.s3))",
        "S3 storage must be used when deploying multiple Recorder replicas: set storage.s3, or replicas: 1",
    );
    constrain_filesystem(spec);
    constrain_s3(spec);
    constrain_pod(spec);
}

fn constrain_filesystem(spec: &mut Schema) {
    let filesystem = ["storage", "filesystem"];
    schema::rule(
        spec,
        &filesystem,
        "!(has(self.emptyDir) && has(self.volumeClaimTemplate))",
        "a disk is an emptyDir or a claim: set one of emptyDir and volumeClaimTemplate",
    );
    for map in ["labels", "annotations"] {
        schema::cap_map(spec, &["storage", "filesystem", "volumeClaimTemplate", "metadata", map], 64);
    }
}

fn constrain_s3(spec: &mut Schema) {
    let at = |field| ["storage", "s3", field];
    schema::text(spec, &at("endpoint"), 1, 512);
    schema::text(spec, &at("bucket"), 3, 255);
    schema::text(spec, &at("region"), 1, 64);
    schema::text(spec, &at("prefix"), 0, 512);
    schema::text(spec, &at("kmsKey"), 1, 2048);
    schema::rule(
        spec,
        &["storage", "s3"],
        "!has(self.kmsKey) || (has(self.sse) && self.sse == 'aws:kms')",
        "kmsKey names a key for sse: aws:kms; set that, or leave kmsKey away",
    );
    schema::rule(
        spec,
        &["storage"],
        "!has(self.s3) || !has(self.s3.ack) || self.s3.ack != 'volume' || (has(self.filesystem) && has(self.filesystem.volumeClaimTemplate))",
        "ack: volume needs a volume that outlives the pod: set filesystem.volumeClaimTemplate",
    );
    schema::text(spec, &["storage", "s3", "credentials", "secret", "name"], 0, 253);
    schema::rule(spec, &["storage", "s3", "credentials", "secret"], SECRET_OF_OURS, SECRET_OF_OURS_MESSAGE);
    schema::rule(
        spec,
        &at("ca"),
        "has(self.configMap) != has(self.secret)",
        "certificate authorities come from one place: set configMap or secret",
    );
    for source in ["configMap", "secret"] {
        schema::text(spec, &["storage", "s3", "ca", source, "name"], 1, 253);
        schema::text(spec, &["storage", "s3", "ca", source, "key"], 1, 253);
    }
    schema::rule(spec, &["storage", "s3", "ca", "secret"], SECRET_OF_OURS, SECRET_OF_OURS_MESSAGE);
}

fn constrain_pod(spec: &mut Schema) {
    for map in ["labels", "annotations"] {
        schema::cap_map(spec, &["statefulSet", map], 64);
        schema::cap_map(spec, &["statefulSet", "pod", map], 64);
    }
    let pod = |field| ["statefulSet", "pod", field];
    schema::cap_items(spec, &pod("imagePullSecrets"), 16);
    schema::cap_map(spec, &pod("nodeSelector"), 64);
    schema::cap_items(spec, &pod("tolerations"), 64);
    let account = |field| ["statefulSet", "pod", "serviceAccount", field];
    schema::text(spec, &account("name"), 1, 253);
    schema::pattern(spec, &account("name"), "^[a-z0-9]([a-z0-9-.]{0,61}[a-z0-9])?$");
    schema::cap_map(spec, &account("annotations"), 64);
    let container = |field| ["statefulSet", "pod", "container", field];
    schema::text(spec, &container("image"), 1, 1024);
    schema::cap_items(spec, &container("env"), 128);
    let name = ["statefulSet", "pod", "container", "env", "[]", "name"];
    schema::text(spec, &name, 1, 253);
    schema::pattern(spec, &name, "^[-._a-zA-Z][-._a-zA-Z0-9]*$");
    schema::text(spec, &["statefulSet", "pod", "container", "env", "[]", "value"], 0, 65_536);
}
