use podwitness_core::{inject::Inject, trust::Trust};

use crate::admit::{
    Settings, mutate,
    testing::{apply, pod, settings},
};

/// The in-pod CA serves while there is no certificate of the cluster's CA; clients trust it by the replaced volume.
#[test]
fn volumes_are_replaced_whichever_ca_the_certificate_is_to_be_of() {
    for inject in [Inject::Required, Inject::Optional] {
        let [own, clusters] = [Trust::Pod, Trust::Cluster].map(|trust| {
            let settings = Settings { trust, ..settings(inject) };
            apply(pod(), &mutate(&pod(), &settings).unwrap())
        });
        assert_eq!(own["spec"]["volumes"], clusters["spec"]["volumes"]);
        assert_eq!(own["spec"]["containers"], clusters["spec"]["containers"]);
        let mount = &clusters["spec"]["containers"][0]["volumeMounts"][0];
        assert_eq!(mount["name"], "podwitness-serviceaccount-0");
    }
}
