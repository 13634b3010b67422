//! Amounts of resources: `100m`, `1Gi`, `1e3` (`k8s.io/apimachinery/pkg/api/resource`).
//!
//! Exact to the nano, which is upstream's resolution too; finer values round up.

use std::fmt;

const NANO: i128 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    Decimal,
    Binary,
    Exponent,
}

/// A parsed amount, printed back in upstream's canonical form.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    notation: Notation,
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let body = text.strip_prefix(['+', '-']).unwrap_or(text);
        let split = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
        let (number, suffix) = body.split_at(split);
        let well_formed = |suffix: &str| {
            let tail = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
            tail.strip_prefix(['-', '+']).unwrap_or(tail).chars().all(|c| c.is_ascii_digit())
        };
        if number.is_empty() || !well_formed(suffix) {
            return Err(QuantityError::Format);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Numeric);
        }
        let (multiplier, divisor, notation) = scale(suffix)?;
        let digits: i128 = format!("0{whole}{fraction}").parse().map_err(|_| QuantityError::Numeric)?;
        let shift = u32::try_from(fraction.len()).map_err(|_| QuantityError::Numeric)?;
        let below = 10i128.checked_pow(shift).and_then(|p| p.checked_mul(divisor));
        let above = digits.checked_mul(multiplier).and_then(|v| v.checked_mul(NANO));
        let (Some(above), Some(below)) = (above, below) else { return Err(QuantityError::Numeric) };
        let nanos = above / below + i128::from(above % below != 0);
        Ok(Self { nanos: if text.starts_with('-') { -nanos } else { nanos }, notation })
    }

    /// Whole units, rounded up (bytes, pods).
    pub fn value(&self) -> i64 {
        self.ceil(NANO)
    }

    /// Thousandths, rounded up (millicores).
    pub fn milli(&self) -> i64 {
        self.ceil(NANO / 1000)
    }

    /// So many units.
    pub fn whole(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO, notation: Notation::Decimal }
    }

    /// The sum, in this one's notation; nothing of any use to a cluster overflows.
    pub fn plus(self, other: Self) -> Self {
        let notation = if self.nanos == 0 { other.notation } else { self.notation };
        Self { nanos: self.nanos.saturating_add(other.nanos), notation }
    }

    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { nanos: other.nanos.saturating_neg(), notation: other.notation })
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    fn ceil(&self, unit: i128) -> i64 {
        let up = self.nanos.div_euclid(unit) + i128::from(self.nanos.rem_euclid(unit) != 0);
        i64::try_from(up).unwrap_or(if up > 0 { i64::MAX } else { i64::MIN })
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

fn scale(suffix: &str) -> Result<(i128, i128, Notation), QuantityError> {
    let decimal = |multiplier, divisor| Ok((multiplier, divisor, Notation::Decimal));
    match suffix {
        "n" => decimal(1, NANO),
        "u" => decimal(1, 1_000_000),
        "m" => decimal(1, 1000),
        "" => decimal(1, 1),
        "k" => decimal(1000, 1),
        "M" => decimal(1_000_000, 1),
        "G" => decimal(NANO, 1),
        "T" => decimal(1000 * NANO, 1),
        "P" => decimal(1_000_000 * NANO, 1),
        "E" => decimal(NANO * NANO, 1),
        "Ki" => Ok((1 << 10, 1, Notation::Binary)),
        "Mi" => Ok((1 << 20, 1, Notation::Binary)),
        "Gi" => Ok((1 << 30, 1, Notation::Binary)),
        "Ti" => Ok((1 << 40, 1, Notation::Binary)),
        "Pi" => Ok((1 << 50, 1, Notation::Binary)),
        "Ei" => Ok((1 << 60, 1, Notation::Binary)),
        _ => {
            let power = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let power: i32 = power.parse().map_err(|_| QuantityError::Suffix)?;
            let ten = 10i128.checked_pow(power.unsigned_abs()).ok_or(QuantityError::Numeric)?;
            let (multiplier, divisor) = if power < 0 { (1, ten) } else { (ten, 1) };
            Ok((multiplier, divisor, Notation::Exponent))
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return out.write_str("0");
        }
        if self.notation == Notation::Binary && self.nanos.abs() >= 1024 * NANO {
            let (mut value, mut power) = (i128::from(self.value()), 0);
            while value % 1024 == 0 && power < 6 {
                (value, power) = (value / 1024, power + 1);
            }
            return write!(out, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut value, mut power) = (self.nanos, 0);
        while value % 1000 == 0 && power < 9 {
            (value, power) = (value / 1000, power + 1);
        }
        let suffix = match self.notation {
            Notation::Exponent => ["e-9", "e-6", "e-3", "", "e3", "e6", "e9", "e12", "e15", "e18"][power],
            _ => ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power],
        };
        write!(out, "{value}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_print_in_canonical_form() {
        for (text, canonical) in [
            ("0.5", "500m"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("1024Mi", "1Gi"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("512", "512"),
            ("1e3", "1e3"),
            ("0", "0"),
            ("-1", "-1"),
            ("0Gi", "0"),
        ] {
            assert_eq!(Quantity::parse(text).expect(text).to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn bad_quantities_are_refused_and_amounts_round_up() {
        assert_eq!(Quantity::parse("lots"), Err(QuantityError::Format));
        assert_eq!(Quantity::parse("1Xi"), Err(QuantityError::Format));
        assert_eq!(Quantity::parse("1mm"), Err(QuantityError::Suffix));
        assert_eq!(Quantity::parse("1.5m").map(|q| q.milli()), Ok(2));
        assert_eq!(Quantity::parse("64Mi").map(|q| q.value()), Ok(67_108_864));
    }
}
