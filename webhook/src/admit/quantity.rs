//! Kubernetes quantities (`k8s.io/apimachinery/pkg/api/resource/quantity.go`), as far as CPU and memory need them.
//!
//! What is written is the form to which the API server itself brings a quantity, so that a pod which comes back from it
//! compares equal.

/// Longest text that is looked at.
const MAX_LEN: usize = 32;
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// CPU in thousandths, rounded up; `None` where the text is no quantity.
pub(super) fn cpu(text: &str) -> Option<u64> {
    thousandths(text).and_then(|value| u64::try_from(value).ok())
}

/// Bytes, rounded up to KiB; `None` where the text is no quantity.
pub(crate) fn memory(text: &str) -> Option<u64> {
    let bytes = u64::try_from(thousandths(text)?.div_ceil(1000)).ok()?;
    bytes.checked_next_multiple_of(1024)
}

/// Thousandths of a CPU as text.
pub(super) fn cpu_text(thousandths: u64) -> String {
    if thousandths.is_multiple_of(1000) {
        (thousandths / 1000).to_string()
    } else {
        format!("{thousandths}m")
    }
}

/// Bytes as text, with the largest binary unit that divides them.
pub(super) fn memory_text(bytes: u64) -> String {
    let mut number = bytes;
    let mut unit = "";
    for next in BINARY {
        if number == 0 || !number.is_multiple_of(1024) {
            break;
        }
        number /= 1024;
        unit = next;
    }
    format!("{number}{unit}")
}

/// Thousandths of what the text says, rounded up as `Quantity.MilliValue` does; `None` where the text is no quantity.
pub(super) fn thousandths(text: &str) -> Option<u128> {
    if text.len() > MAX_LEN {
        return None;
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let decimals = i32::try_from(fraction.len()).ok()?;
    match BINARY.iter().position(|binary| *binary == unit) {
        Some(position) => {
            let factor = 1024_u128.checked_pow(u32::try_from(position).ok()?.checked_add(1)?)?;
            scaled(digits.checked_mul(factor)?, 3_i32.checked_sub(decimals)?)
        }
        None => scaled(digits, exponent(unit)?.checked_add(3)?.checked_sub(decimals)?),
    }
}

/// `digits` × 10^`exponent`, rounded up.
fn scaled(digits: u128, exponent: i32) -> Option<u128> {
    let factor = 10_u128.checked_pow(exponent.unsigned_abs())?;
    if exponent < 0 { Some(digits.div_ceil(factor)) } else { digits.checked_mul(factor) }
}

fn exponent(unit: &str) -> Option<i32> {
    Some(match unit {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        _ => unit.strip_prefix(['e', 'E'])?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_the_api_server_reads_them() {
        for (text, expected) in [
            ("100m", 100),
            ("0.1", 100),
            ("1", 1000),
            ("1.5", 1500),
            ("2e3", 2_000_000),
            ("1u", 1),
            (".5", 500),
        ] {
            assert_eq!(cpu(text), Some(expected), "{text}");
        }
        for (text, expected) in [
            ("64Mi", 64 << 20),
            ("1.5Gi", 1536 << 20),
            ("67108864", 64 << 20),
            ("64M", 64_000_000_u64.next_multiple_of(1024)),
            ("1E3", 1024),
            ("128974848000m", 128_974_848),
        ] {
            assert_eq!(memory(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for wrong in
            ["", "m", "-1", "1.2.3", "1 Gi", "1KB", "1mi", "1e", "1e99", "9".repeat(40).as_str(), "."]
        {
            assert_eq!((cpu(wrong), memory(wrong)), (None, None), "{wrong:?}");
        }
    }

    #[test]
    fn text_is_canonical() {
        assert_eq!([cpu_text(100), cpu_text(1000), cpu_text(1500)], ["100m", "1", "1500m"]);
        assert_eq!(
            [memory_text(64 << 20), memory_text(1 << 30), memory_text(1536 << 20)],
            ["64Mi", "1Gi", "1536Mi"]
        );
        assert_eq!([memory_text(0), memory_text(3 << 10)], ["0", "3Ki"]);
    }
}
