//! Fits the request and the limit of the sidecar for one resource between what it needs, what its namespace's
//! LimitRanges demand, and what the rest of the pod takes.
//!
//! Amounts are thousandths of a CPU, or of a byte. Both values stay as they are wanted wherever they may. Where they may
//! not, they move to the nearest that is allowed; where the ratio between them is too high the request rises, and only
//! where it cannot rise far enough the limit falls.

use std::fmt;

use super::ranges::Bounds;

/// What the sidecar would have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Wanted {
    pub(super) request: u128,
    /// None: it is not limited, unless it has to be.
    pub(super) limit: Option<u128>,
    /// Its limit where it has to have one and none is wanted.
    pub(super) fallback: u128,
    /// Whether request and limit have to be equal, so that the pod stays Guaranteed.
    pub(super) equal: bool,
}

/// What it has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fitted {
    pub(super) request: u128,
    pub(super) limit: Option<u128>,
}

/// Between what it has to be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Frame {
    /// Least limit with which the sidecar can do its work.
    pub(super) floor: u128,
    /// Values are multiples of it.
    pub(super) step: u128,
    /// Of each container.
    pub(super) container: Bounds,
    /// Of all containers together.
    pub(super) pod: Bounds,
    /// What all other containers have together.
    pub(super) others: Sums,
    /// What the pod as a whole has by `spec.resources`; LimitRanges count that in place of the containers' sum.
    pub(super) whole: Sums,
    /// Whether something else than a LimitRange asks for a limit.
    pub(super) asks_for_limit: bool,
}

/// A request and a limit, where there are any.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Sums {
    pub(super) request: Option<u128>,
    pub(super) limit: Option<u128>,
}

/// What sets a bound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// Nothing but the other value.
    Other,
    Floor,
    ContainerMin,
    ContainerMax,
    PodMin,
    PodMax,
    WholeRequest,
    WholeLimit,
}

/// A value that would have to be at least one thing and at most another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Misfit {
    /// `request`, `limit`, or both where they have to be equal.
    pub(super) what: &'static str,
    pub(super) least: (u128, Why),
    pub(super) most: (u128, Why),
    /// The ratio because of which the limit cannot be higher, in thousandths.
    pub(super) ratio: Option<u128>,
}

/// Lowest and highest value, and what sets them.
#[derive(Clone, Copy, Debug)]
struct Span {
    least: (u128, Why),
    most: (u128, Why),
}

impl Span {
    const ANY: Self = Self { least: (0, Why::Other), most: (u128::MAX, Why::Other) };

    fn at_least(&mut self, value: Option<u128>, why: Why) {
        self.least = value
            .map(|value| (value, why))
            .into_iter()
            .fold(self.least, |one, other| if other.0 > one.0 { other } else { one });
    }

    fn at_most(&mut self, value: Option<u128>, why: Why) {
        self.most = value
            .map(|value| (value, why))
            .into_iter()
            .fold(self.most, |one, other| if other.0 < one.0 { other } else { one });
    }

    fn and(mut self, other: Self) -> Self {
        self.at_least(Some(other.least.0), other.least.1);
        self.at_most(Some(other.most.0), other.most.1);
        self
    }

    /// To multiples of the step that are between the bounds.
    fn stepped(self, step: u128) -> Self {
        let least = self.least.0.checked_next_multiple_of(step).unwrap_or(u128::MAX);
        let most = self.most.0.saturating_sub(self.most.0.checked_rem(step).unwrap_or_default());
        Self { least: (least, self.least.1), most: (most, self.most.1) }
    }

    fn check(self, what: &'static str) -> Result<Self, Misfit> {
        if self.least.0 <= self.most.0 {
            return Ok(self);
        }
        Err(Misfit { what, least: self.least, most: self.most, ratio: None })
    }

    /// The value in the span that is nearest; there is one.
    fn nearest(&self, value: u128) -> u128 {
        value.min(self.most.0).max(self.least.0)
    }
}

/// Fits.
///
/// # Errors
/// Where nothing fits, with the value that is impossible.
pub(super) fn fit(wanted: Wanted, frame: &Frame) -> Result<Fitted, Misfit> {
    let requests = frame.requests().stepped(frame.step);
    let limited = wanted.equal || wanted.limit.is_some() || frame.needs_limit();
    if !limited {
        return Ok(Fitted { request: requests.check("request")?.nearest(wanted.request), limit: None });
    }
    let limits = frame.limits().stepped(frame.step);
    let wanted_limit = wanted.limit.unwrap_or(wanted.fallback);
    if wanted.equal {
        let both = requests.and(limits).check("request and limit")?;
        let value = both.nearest(wanted_limit);
        return Ok(Fitted { request: value, limit: Some(value) });
    }
    let requests = requests.check("request")?;
    let mut limits = limits.check("limit")?;
    limits.at_least(Some(requests.least.0), requests.least.1);
    let limits = limits.check("limit")?;
    let limit = frame.highest(&requests, &limits, limits.nearest(wanted_limit))?;
    let request = requests.nearest(wanted.request).max(frame.least_request(limit)).min(limit);
    Ok(Fitted { request, limit: Some(limit) })
}

impl Frame {
    fn needs_limit(&self) -> bool {
        self.asks_for_limit || self.container.asks_for_limit() || self.pod.asks_for_limit()
    }

    fn requests(&self) -> Span {
        let mut span = Span::ANY;
        span.at_least(self.container.min, Why::ContainerMin);
        span.at_most(self.container.max, Why::ContainerMax);
        let others = self.others.request.unwrap_or_default();
        match self.whole.request {
            // All containers together may request no more (KEP-2837).
            Some(whole) => span.at_most(Some(whole.saturating_sub(others)), Why::WholeRequest),
            None => {
                span.at_least(self.pod.min.map(|min| min.saturating_sub(others)), Why::PodMin);
                span.at_most(self.pod.max.map(|max| max.saturating_sub(others)), Why::PodMax);
            }
        }
        span
    }

    fn limits(&self) -> Span {
        let mut span = Span::ANY;
        span.at_least(Some(self.floor), Why::Floor);
        span.at_least(self.container.min, Why::ContainerMin);
        span.at_most(self.container.max, Why::ContainerMax);
        let others = self.others.limit.unwrap_or_default();
        match self.whole.limit {
            Some(whole) => span.at_most(Some(whole), Why::WholeLimit),
            None => {
                span.at_least(self.pod.min.map(|min| min.saturating_sub(others)), Why::PodMin);
                span.at_most(self.pod.max.map(|max| max.saturating_sub(others)), Why::PodMax);
            }
        }
        span
    }

    /// The highest limit up to `wanted` to which there is a request.
    fn highest(&self, requests: &Span, limits: &Span, wanted: u128) -> Result<u128, Misfit> {
        let highest = requests.most.0;
        let fits = |limit: u128| self.least_request(limit) <= highest.min(limit);
        let most = self.most_limit(highest, wanted);
        // A ratio that is no whole number is kept with room to spare, and what it is taken times of is rounded.
        let mut lower = [0, 1, 2].into_iter().map(|steps: u128| {
            self.most_limit(highest.saturating_sub(self.step.saturating_mul(steps)), wanted)
        });
        let found = lower.find(|limit| fits(*limit));
        found.filter(|limit| *limit >= limits.least.0).ok_or_else(|| Misfit {
            what: "limit",
            least: limits.least,
            most: (most, Why::Other),
            ratio: self.container.ratio.into_iter().chain(self.pod.ratio).min(),
        })
    }

    /// The highest limit up to `wanted` that the ratios allow to a request.
    fn most_limit(&self, request: u128, wanted: u128) -> u128 {
        let by_container = self.container.ratio.map(|ratio| times(request, ratio));
        let by_pod = self.pod.ratio.filter(|_| self.whole.limit.is_none()).map(|ratio| {
            let request = self.whole.request.unwrap_or_else(|| self.others_request().saturating_add(request));
            times(request, ratio).saturating_sub(self.others.limit.unwrap_or_default())
        });
        let most = [Some(wanted), by_container, by_pod].into_iter().flatten().min().unwrap_or(wanted);
        most.saturating_sub(most.checked_rem(self.step).unwrap_or_default())
    }

    /// The least request that a limit may have by the ratios.
    fn least_request(&self, limit: u128) -> u128 {
        let by_container = self.container.ratio.map(|ratio| divided(limit, ratio, self.step));
        let by_pod = self.pod.ratio.filter(|_| self.whole.request.is_none()).map(|ratio| {
            let whole = self.whole.limit;
            let limits = whole.unwrap_or_else(|| self.others.limit.unwrap_or_default().saturating_add(limit));
            divided(limits.saturating_sub(times(self.others_request(), ratio)), ratio, self.step)
        });
        by_container.into_iter().chain(by_pod).max().unwrap_or_default()
    }

    fn others_request(&self) -> u128 {
        self.others.request.unwrap_or_default()
    }
}

/// The amount times a ratio of thousandths, rounded down.
fn times(amount: u128, ratio: u128) -> u128 {
    amount.saturating_mul(ratio).checked_div(1000).unwrap_or_default()
}

/// The least multiple of `step` that an amount is at most `ratio` thousandths of. The API server compares in floating
/// point: at a ratio that is no whole number one step more is on the safe side, unless nothing has to be requested.
fn divided(amount: u128, ratio: u128, step: u128) -> u128 {
    let thousandths = amount.saturating_mul(1000);
    let Some(least) = thousandths.checked_add(ratio.saturating_sub(1)).and_then(|sum| sum.checked_div(ratio))
    else {
        return u128::MAX;
    };
    let more = if least == 0 || ratio.is_multiple_of(1000) { 0 } else { step };
    least.checked_next_multiple_of(step).and_then(|least| least.checked_add(more)).unwrap_or(u128::MAX)
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Other => "by its other value",
            Self::Floor => "what the sidecar needs",
            Self::ContainerMin => "min of the LimitRange, type Container",
            Self::ContainerMax => "max of the LimitRange, type Container",
            Self::PodMin => "min of the LimitRange, type Pod, less what the other containers have",
            Self::PodMax => "max of the LimitRange, type Pod, less what the other containers have",
            Self::WholeRequest => "spec.resources.requests of the pod less what the other containers have",
            Self::WholeLimit => "spec.resources.limits of the pod",
        })
    }
}

#[cfg(test)]
mod tests;
