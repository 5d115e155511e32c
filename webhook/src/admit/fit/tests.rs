use super::*;

/// A request of 20, no limit, and 100 where there has to be one; values are multiples of 1.
const CPU: Wanted = Wanted { request: 20, limit: None, fallback: 100, equal: false };
/// A request of 32 and a limit of 128; values are multiples of 4.
const MEMORY: Wanted = Wanted { request: 32, limit: Some(128), fallback: 64, equal: false };

fn cpu() -> Frame {
    Frame { floor: 100, step: 1, ..Frame::default() }
}

fn memory() -> Frame {
    Frame { floor: 64, step: 4, ..Frame::default() }
}

fn bounds(min: Option<u128>, max: Option<u128>, ratio: Option<u128>) -> Bounds {
    Bounds { min, max, ratio, default: false }
}

fn sums(request: impl Into<Option<u128>>, limit: impl Into<Option<u128>>) -> Sums {
    Sums { request: request.into(), limit: limit.into() }
}

fn fitted(wanted: Wanted, frame: Frame) -> (u128, Option<u128>) {
    let fitted = fit(wanted, &frame).unwrap_or_else(|misfit| panic!("{frame:?}: {misfit:?}"));
    (fitted.request, fitted.limit)
}

#[test]
fn what_is_wanted_is_given_where_nothing_stands_against_it() {
    assert_eq!(fitted(CPU, cpu()), (20, None));
    assert_eq!(fitted(MEMORY, memory()), (32, Some(128)));
    let full = sums(1000, 1000);
    assert_eq!(fitted(MEMORY, Frame { others: full, ..memory() }), (32, Some(128)));
}

#[test]
fn a_limit_is_given_where_there_has_to_be_one() {
    for container in [
        bounds(None, Some(500), None),
        bounds(None, None, Some(10_000)),
        Bounds { default: true, ..Bounds::default() },
    ] {
        assert_eq!(fitted(CPU, Frame { container, ..cpu() }), (20, Some(100)), "{container:?}");
    }
    for pod in [bounds(None, Some(500), None), bounds(None, None, Some(10_000))] {
        assert_eq!(fitted(CPU, Frame { pod, ..cpu() }), (20, Some(100)), "{pod:?}");
    }
    assert_eq!(fitted(CPU, Frame { asks_for_limit: true, ..cpu() }), (20, Some(100)));
    assert_eq!(fitted(CPU, Frame { container: bounds(Some(50), None, None), ..cpu() }), (50, None));
}

/// The others request all that a pod may, and the limit of the pod as a whole is far below what their requests allow.
#[test]
fn no_request_is_needed_for_a_ratio_that_the_other_containers_keep() {
    for ratio in [1000, 1100, 1500, 2000, 3300] {
        let pod = bounds(None, Some(256), Some(ratio));
        let frame = Frame { pod, others: sums(256, None), whole: sums(None, 64), ..memory() };
        assert_eq!(fitted(Wanted { request: 0, ..MEMORY }, frame), (0, Some(64)), "{ratio}");
    }
}

/// The request cannot rise above what the pod as a whole leaves, so that the limit falls to what the ratio allows to that.
#[test]
fn a_limit_falls_to_the_highest_that_a_ratio_allows() {
    for (ratio, left, limit) in
        [(1100, 64, 64), (1500, 48, 64), (2000, 40, 80), (3300, 24, 64), (5500, 16, 64)]
    {
        let frame = Frame { container: bounds(None, None, Some(ratio)), whole: sums(left, None), ..memory() };
        let (request, fitted) = fitted(MEMORY, frame);
        assert!(request <= left && fitted >= Some(limit), "{ratio}: {request}, {fitted:?}");
    }
}

#[test]
fn values_move_to_the_nearest_that_a_limit_range_allows() {
    for (container, expected) in [
        (bounds(Some(48), None, None), (48, 128)),
        (bounds(Some(150), None, None), (152, 152)),
        (bounds(None, Some(102), None), (32, 100)),
        (bounds(None, Some(64), None), (32, 64)),
        (bounds(None, None, Some(4000)), (32, 128)),
        (bounds(None, None, Some(2000)), (64, 128)),
        (bounds(None, None, Some(1000)), (128, 128)),
        // No whole number: a step more.
        (bounds(None, None, Some(1500)), (92, 128)),
        (bounds(Some(80), Some(90), Some(1000)), (88, 88)),
    ] {
        let frame = Frame { container, ..memory() };
        assert_eq!(fitted(MEMORY, frame), (expected.0, Some(expected.1)), "{container:?}");
    }
}

#[test]
fn the_rest_of_the_pod_counts_where_the_pod_is_limited() {
    for (pod, others, expected) in [
        (bounds(None, Some(300), None), sums(100, 200), (32, 100)),
        (bounds(None, Some(300), None), sums(290, 200), (8, 100)),
        (bounds(Some(300), None, None), sums(200, 200), (100, 128)),
        // A limit that is the pod's only one has to be as high as the least of the pod.
        (bounds(Some(150), None, None), sums(150, None), (32, 152)),
        (bounds(None, None, Some(2000)), sums(100, 200), (64, 128)),
        (bounds(None, None, Some(2000)), sums(200, 200), (32, 128)),
    ] {
        let frame = Frame { pod, others, ..memory() };
        assert_eq!(fitted(MEMORY, frame), (expected.0, Some(expected.1)), "{pod:?} {others:?}");
    }
}

#[test]
fn the_limit_falls_only_where_the_request_cannot_rise() {
    let pod = bounds(None, Some(300), Some(2000));
    assert_eq!(fitted(MEMORY, Frame { pod, others: sums(260, 100), ..memory() }), (32, Some(128)));
    let whole = sums(100, None);
    let container = bounds(None, None, Some(2000));
    let frame = Frame { container, whole, others: sums(60, 60), ..memory() };
    assert_eq!(fitted(Wanted { request: 0, ..MEMORY }, frame), (40, Some(80)));
}

#[test]
fn what_a_pod_has_as_a_whole_counts_in_place_of_its_containers() {
    let wanted = Wanted { request: 0, ..MEMORY };
    for (pod, whole, expected) in [
        (Bounds::default(), sums(100, 100), (0, 100)),
        (bounds(None, Some(100), None), sums(100, 100), (0, 100)),
        (bounds(None, None, Some(1000)), sums(200, 200), (0, 128)),
    ] {
        let frame = Frame { pod, whole, others: sums(80, 80), ..memory() };
        assert_eq!(fitted(wanted, frame), (expected.0, Some(expected.1)), "{pod:?} {whole:?}");
    }
}

#[test]
fn in_a_guaranteed_pod_both_are_one() {
    let wanted = Wanted { limit: Some(64), equal: true, ..MEMORY };
    assert_eq!(fitted(wanted, memory()), (64, Some(64)));
    let container = bounds(Some(100), Some(200), Some(1000));
    assert_eq!(fitted(wanted, Frame { container, ..memory() }), (100, Some(100)));
    let pod = bounds(None, Some(300), Some(1000));
    assert_eq!(fitted(wanted, Frame { pod, others: sums(236, 236), ..memory() }), (64, Some(64)));
}

fn impossible(wanted: Wanted, frame: Frame, what: &str, [least, most]: [Why; 2], ratio: Option<u128>) {
    let misfit = fit(wanted, &frame).unwrap_err();
    assert_eq!(
        (misfit.what, misfit.least.1, misfit.most.1, misfit.ratio),
        (what, least, most, ratio),
        "{frame:?}"
    );
    assert!(misfit.least.0 > misfit.most.0, "{misfit:?}");
}

#[test]
fn what_is_impossible_is_named() {
    let at_most = |most| bounds(None, Some(most), None);
    let frame = Frame { container: at_most(32), ..memory() };
    impossible(MEMORY, frame, "limit", [Why::Floor, Why::ContainerMax], None);
    let frame = Frame { pod: at_most(300), others: sums(100, 240), ..memory() };
    impossible(MEMORY, frame, "limit", [Why::Floor, Why::PodMax], None);
    let container = bounds(Some(80), None, None);
    let frame = Frame { pod: at_most(300), container, others: sums(240, 100), ..memory() };
    impossible(MEMORY, frame, "request", [Why::ContainerMin, Why::PodMax], None);
    let frame = Frame { whole: sums(None, 60), ..memory() };
    impossible(MEMORY, frame, "limit", [Why::Floor, Why::WholeLimit], None);
    let frame = Frame { whole: sums(100, None), container, others: sums(60, 60), ..memory() };
    impossible(MEMORY, frame, "request", [Why::ContainerMin, Why::WholeRequest], None);
    let container = bounds(None, None, Some(2000));
    let frame = Frame { whole: sums(80, None), container, others: sums(60, 60), ..memory() };
    impossible(MEMORY, frame, "limit", [Why::Floor, Why::Other], Some(2000));
}

#[test]
fn what_is_impossible_in_a_guaranteed_pod_is_named() {
    let wanted = Wanted { equal: true, limit: Some(64), ..MEMORY };
    let (both, sixty) = ("request and limit", bounds(None, Some(60), None));
    let frame = Frame { container: sixty, ..memory() };
    impossible(wanted, frame, both, [Why::Floor, Why::ContainerMax], None);
    impossible(wanted, Frame { pod: sixty, ..memory() }, both, [Why::Floor, Why::PodMax], None);
}
