use k8s_openapi::api::core::v1::ConfigMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn objects<T: serde::de::DeserializeOwned>(values: impl IntoIterator<Item = Value>) -> Vec<Arc<T>> {
    values.into_iter().map(|value| Arc::new(serde_json::from_value(value).unwrap())).collect()
}

fn service(namespace: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({"metadata": {"namespace": namespace, "name": name}});
    object["spec"] = spec;
    object
}

fn slice(namespace: &str, service: &str, ports: Value, addresses: &[&str]) -> Value {
    let labels = json!({"kubernetes.io/service-name": service});
    let mut object = json!({"metadata": {"namespace": namespace, "name": "s", "labels": labels},
        "addressType": "IPv4", "endpoints": [{"addresses": addresses}]});
    object["ports"] = ports;
    object
}

/// The API server of a cluster with two nodes, on one of which it runs.
fn own() -> (Vec<Value>, Vec<Value>, Vec<Value>) {
    let spec = json!({"clusterIPs": ["10.96.0.1", "fd00::1"], "ports": [{"name": "https", "port": 443}]});
    let node = |name: &str, addresses: &[(&str, &str)]| {
        let addresses: Vec<Value> =
            addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
        json!({"metadata": {"name": name}, "status": {"addresses": addresses}})
    };
    (
        vec![service("default", "kubernetes", spec)],
        vec![slice("default", "kubernetes", json!([{"name": "https", "port": 6443}]), &["172.18.0.2"])],
        vec![
            node("cp", &[("InternalIP", "172.18.0.2"), ("ExternalIP", "203.0.113.2"), ("Hostname", "cp")]),
            node("worker", &[("InternalIP", "172.18.0.3")]),
        ],
    )
}

const KNOWN: [&str; 4] = ["10.96.0.1:443", "[fd00::1]:443", "172.18.0.2:6443", "203.0.113.2:6443"];

/// What is found besides [`KNOWN`] with these Services and slices.
fn besides(services: Vec<Value>, slices: Vec<Value>, given: &str) -> Vec<String> {
    let mut all = own();
    all.0.extend(services);
    all.1.extend(slices);
    let given = if given.is_empty() { vec![] } else { parse(given).unwrap() };
    let named = Named::from([("api.example.com".to_owned(), vec!["198.51.100.7".parse().unwrap()])]);
    let found = find(&Objects {
        services: &objects(all.0),
        slices: &objects(all.1),
        nodes: &objects(all.2),
        given: &given,
        named: &named,
    });
    assert_eq!(found.secure_ports, [6443]);
    let found: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
    KNOWN.iter().for_each(|known| assert!(found.iter().any(|at| at == known), "{known} in {found:?}"));
    found.into_iter().filter(|at| !KNOWN.contains(&at.as_str())).collect()
}

#[test]
fn the_cluster_itself_says_service_endpoints_and_addresses_of_their_nodes() {
    assert!(besides(vec![], vec![], "").is_empty());
}

#[test]
fn a_service_of_another_name_leads_there_with_all_its_addresses() {
    let spec = json!({"type": "LoadBalancer", "clusterIPs": ["10.96.7.7"], "externalIPs": ["198.51.100.9"],
        "ports": [{"name": "tls", "port": 443, "nodePort": 30443}, {"name": "other", "port": 81}]});
    let mut leading = service("shop", "mine", spec);
    leading["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.8"}, {"hostname": "lb"}]}});
    let behind = slice(
        "shop",
        "mine",
        json!([{"name": "tls", "port": 6443}, {"name": "other", "port": 6444}]),
        &["10.244.0.9", "172.18.0.2"],
    );
    let expected = [
        "10.96.7.7:443",
        "198.51.100.8:443",
        "198.51.100.9:443",
        "172.18.0.2:30443",
        "172.18.0.3:30443",
        "203.0.113.2:30443",
    ];
    assert_eq!(besides(vec![leading], vec![behind], ""), expected);
}

#[test]
fn what_leads_elsewhere_is_left_alone() {
    let spec = json!({"clusterIPs": ["10.96.7.7"], "ports": [{"name": "tls", "port": 443}]});
    let tls = |port: u16| json!([{"name": "tls", "port": port}]);
    let udp = json!([{"name": "tls", "port": 6443, "protocol": "UDP"}]);
    for (of, behind) in [
        (("shop", "web"), slice("shop", "web", tls(443), &["172.18.0.2"])),
        (("shop", "web"), slice("shop", "web", tls(6443), &["172.18.0.3"])),
        (("shop", "web"), slice("blog", "web", tls(6443), &["172.18.0.2"])),
        (("shop", "web"), slice("shop", "other", tls(6443), &["172.18.0.2"])),
        (("shop", "web"), slice("shop", "web", udp, &["172.18.0.2"])),
        (("shop", "web"), slice("shop", "web", json!([{"name": "x", "port": 6443}]), &["172.18.0.2"])),
        (("shop", "kubernetes"), slice("shop", "kubernetes", tls(6443), &["172.18.0.9"])),
    ] {
        let found = besides(vec![service(of.0, of.1, spec.clone())], vec![behind.clone()], "");
        assert!(found.is_empty(), "{behind}: {found:?}");
    }
}

#[test]
fn a_service_that_leads_to_one_that_leads_there_is_found() {
    let spec = |ip: &str| json!({"clusterIPs": [ip], "ports": [{"port": 8443}]});
    let services = vec![service("a", "one", spec("10.96.1.1")), service("b", "two", spec("10.96.1.2"))];
    let slices = vec![
        slice("a", "one", json!([{"port": 8443}]), &["10.96.1.2"]),
        slice("b", "two", json!([{"port": 6443}]), &["172.18.0.2"]),
    ];
    let mut found = besides(services, slices, "");
    found.sort();
    assert_eq!(found, ["10.96.1.1:8443", "10.96.1.2:8443"]);
}

#[test]
fn what_is_said_counts_on_the_ports_that_are_meant() {
    let found = besides(vec![], vec![], "api.example.com, 192.0.2.1:8443, 192.0.2.2, unknown.example.com:1");
    let expected =
        ["192.0.2.1:8443", "192.0.2.2:443", "192.0.2.2:6443", "198.51.100.7:443", "198.51.100.7:6443"];
    assert_eq!(found, expected);
}

#[test]
fn the_setting_is_names_addresses_and_small_networks() {
    let ips = |text: &[&str]| text.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    let of = |text: &str| parse(text).map(|mut items| items.remove(0));
    for (text, expected) in [
        ("Api.Example.COM", Given::Name("api.example.com".into(), None)),
        ("api:6443", Given::Name("api".into(), Some(6443))),
        ("10.0.0.1", Given::Addresses(ips(&["10.0.0.1"]), None)),
        ("10.0.0.1:6443", Given::Addresses(ips(&["10.0.0.1"]), Some(6443))),
        ("fd00::1", Given::Addresses(ips(&["fd00::1"]), None)),
        ("[fd00::1]", Given::Addresses(ips(&["fd00::1"]), None)),
        ("[fd00::1]:6443", Given::Addresses(ips(&["fd00::1"]), Some(6443))),
        ("10.0.0.7/30", Given::Addresses(ips(&["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"]), None)),
        ("255.255.255.255/31", Given::Addresses(ips(&["255.255.255.254", "255.255.255.255"]), None)),
        ("fd00::/127", Given::Addresses(ips(&["fd00::", "fd00::1"]), None)),
    ] {
        assert_eq!(of(text), Some(expected), "{text}");
    }
    for text in [
        "",
        ",",
        "10.0.0.0/25",
        "fd00::/64",
        "10.0.0.0/33",
        "10.0.0.0/0",
        "a b",
        "api:0",
        "api:x",
        "1.1.1.1:0",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
    assert!(parse(&vec!["a"; 65].join(",")).is_none());
}

#[test]
fn cluster_info_says_a_server() {
    let of = |server: &str| {
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: ''\n  cluster:\n    server: {server}\n    certificate-authority-data: eA==\n"
        );
        given::of_cluster_info(&ConfigMap {
            data: Some([("kubeconfig".to_owned(), kubeconfig)].into()),
            ..ConfigMap::default()
        })
    };
    assert_eq!(of("https://lb.example.com:6443"), [Given::Name("lb.example.com".into(), Some(6443))]);
    assert_eq!(of("https://192.0.2.1"), [Given::Addresses(vec!["192.0.2.1".parse().unwrap()], Some(443))]);
    assert_eq!(
        of("https://[fd00::1]:6443"),
        [Given::Addresses(vec!["fd00::1".parse().unwrap()], Some(6443))]
    );
    assert!(of("'not a url'").is_empty());
    assert!(given::of_cluster_info(&ConfigMap::default()).is_empty());
}

#[test]
fn many_services_push_out_nothing_that_the_cluster_itself_says() {
    let mut all = own();
    for n in 0..300 {
        let ip = format!("10.1.{}.{}", n / 250, n % 250 + 1);
        all.0.push(service("shop", &format!("s{n}"), json!({"clusterIPs": [ip], "ports": [{"port": 443}]})));
        all.1.push(slice("shop", &format!("s{n}"), json!([{"port": 6443}]), &["172.18.0.2"]));
    }
    let objects_of = (objects(all.0), objects(all.1), objects(all.2));
    let given = parse("192.0.2.2:443").unwrap();
    let found = find(&Objects {
        services: &objects_of.0,
        slices: &objects_of.1,
        nodes: &objects_of.2,
        given: &given,
        named: &Named::new(),
    });
    assert_eq!(found.addresses.len(), MAX_ADDRESSES);
    assert!(found.left_out > 0);
    let first: Vec<String> = found.addresses.iter().take(5).map(ToString::to_string).collect();
    assert_eq!(
        first,
        ["10.96.0.1:443", "[fd00::1]:443", "172.18.0.2:6443", "192.0.2.2:443", "203.0.113.2:6443"]
    );
}

proptest! {
    #[test]
    fn whatever_the_setting_says_it_is_read_without_panic(text in "\\PC{0,40}") {
        if let Some(items) = parse(&text) {
            for item in items {
                if let Given::Addresses(ips, _) = item {
                    prop_assert!(!ips.is_empty() && ips.len() <= MAX_OF_NETWORK as usize);
                }
            }
        }
    }

    #[test]
    fn a_network_has_its_own_address(ip in any::<u32>(), length in 26u32..=32) {
        let ip = IpAddr::from(ip.to_be_bytes());
        let Some(items) = parse(&format!("{ip}/{length}")) else { return Err(TestCaseError::fail("no network")) };
        let [Given::Addresses(ips, None)] = &items[..] else { return Err(TestCaseError::fail("no addresses")) };
        prop_assert!(ips.contains(&ip));
        prop_assert_eq!(ips.len(), 1 << (32 - length));
    }
}
