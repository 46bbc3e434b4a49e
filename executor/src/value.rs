//! Numbers from and to JSON.

use executor_protocol::Value;
use wasmtime::{Val, ValType};

/// Reads one argument from a JSON token. Integers are exact and range-checked; i64 also comes as a decimal string;
/// floats take any number and `"NaN"`, `"Infinity"`, `"-Infinity"`; v128 is `"0x"` and 32 hex digits. None when
/// the token does not fit the type.
#[must_use]
pub fn read(token: &str, ty: &ValType) -> Option<Val> {
    let text = || serde_json::from_str::<String>(token).ok();
    match ty {
        ValType::I32 => token.parse().ok().map(Val::I32),
        ValType::I64 => {
            let text = text();
            let digits = text.as_deref().unwrap_or(token);
            if digits.starts_with('+') {
                return None;
            }
            digits.parse().ok().map(Val::I64)
        }
        ValType::F32 => match text() {
            Some(name) => Some(f32::from_bits(special(&name)?.0)),
            None => token.parse::<f32>().ok().filter(|n| n.is_finite()),
        }
        .map(|n| Val::F32(n.to_bits())),
        ValType::F64 => match text() {
            Some(name) => Some(f64::from_bits(special(&name)?.1)),
            None => token.parse::<f64>().ok().filter(|n| n.is_finite()),
        }
        .map(|n| Val::F64(n.to_bits())),
        ValType::V128 => {
            let text = text()?;
            let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 32)?;
            if digits.starts_with('+') {
                return None;
            }
            Some(Val::V128(u128::from_str_radix(digits, 16).ok()?.into()))
        }
        ValType::Ref(_) => None,
    }
}

/// Reads an unsigned decimal, as the default `add` takes it.
#[must_use]
pub fn read_unsigned(digits: &str, ty: &ValType) -> Option<Val> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match ty {
        ValType::I32 => digits.parse::<u32>().ok().map(|n| Val::I32(n.cast_signed())),
        ValType::I64 => digits.parse::<u64>().ok().map(|n| Val::I64(n.cast_signed())),
        _ => None,
    }
}

/// The bits of a float that JSON has no number for, in both widths; NaN is the canonical one.
fn special(name: &str) -> Option<(u32, u64)> {
    match name {
        "NaN" => Some((0x7fc0_0000, 0x7ff8_0000_0000_0000)),
        "Infinity" => Some((f32::INFINITY.to_bits(), f64::INFINITY.to_bits())),
        "-Infinity" => Some((f32::NEG_INFINITY.to_bits(), f64::NEG_INFINITY.to_bits())),
        _ => None,
    }
}

/// Writes results as the document has them: none is `null`, one is itself, several are an array. None when one of
/// them is a reference, which has no form outside of the guest.
#[must_use]
pub fn write(results: &[Val], unsigned: bool) -> Option<Value> {
    let mut texts =
        results.iter().map(|value| write_one(value, unsigned)).collect::<Option<Vec<_>>>()?;
    let text = match texts.len() {
        0 => "null".to_owned(),
        1 => texts.remove(0),
        _ => format!("[{}]", texts.join(",")),
    };
    Value::parse(&text).ok()
}

fn write_one(value: &Val, unsigned: bool) -> Option<String> {
    Some(match *value {
        Val::I32(n) if unsigned => n.cast_unsigned().to_string(),
        Val::I32(n) => n.to_string(),
        Val::I64(n) if unsigned => n.cast_unsigned().to_string(),
        Val::I64(n) => n.to_string(),
        Val::F32(bits) => {
            let n = f32::from_bits(bits);
            float(n.into(), &format!("{n:e}"))
        }
        Val::F64(bits) => {
            let n = f64::from_bits(bits);
            float(n, &format!("{n:e}"))
        }
        Val::V128(bits) => format!("\"{:#034x}\"", bits.as_u128()),
        _ => return None,
    })
}

/// The form of a float. `scientific` has the fewest digits that read back to the same value of its type, as in
/// `-1.25e-3`; the layout is ours, so that it never changes: plain from 1e-7 to below 1e21, else digits and exponent,
/// without `+`, without needless zeros or points.
fn float(n: f64, scientific: &str) -> String {
    if n.is_nan() {
        return "\"NaN\"".to_owned();
    }
    if n.is_infinite() {
        return if n > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" }.to_owned();
    }
    let (sign, unsigned) = match scientific.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", scientific),
    };
    let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    match exponent.parse::<i32>() {
        Ok(places @ 0..21) => {
            let places = usize::try_from(places).unwrap_or_default();
            match fraction.split_at_checked(places) {
                None | Some((_, "")) => format!("{sign}{whole}{fraction:0<places$}"),
                Some((before, after)) => format!("{sign}{whole}{before}.{after}"),
            }
        }
        Ok(places @ -7..0) => {
            let zeros = "0".repeat(usize::try_from(-places - 1).unwrap_or_default());
            format!("{sign}0.{zeros}{whole}{fraction}")
        }
        _ => scientific.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn round_trip(value: &Val, ty: &ValType) -> Option<Val> {
        read(write(std::slice::from_ref(value), false)?.as_str(), ty)
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(
            a in any::<i32>(), b in any::<i64>(), c in any::<f32>(), d in any::<f64>(), e in any::<u128>(),
        ) {
            prop_assert_eq!(round_trip(&Val::I32(a), &ValType::I32).unwrap().i32(), Some(a));
            prop_assert_eq!(round_trip(&Val::I64(b), &ValType::I64).unwrap().i64(), Some(b));
            prop_assume!(!c.is_nan() && !d.is_nan());
            let Some(Val::F32(c_bits)) = round_trip(&Val::F32(c.to_bits()), &ValType::F32) else { panic!() };
            prop_assert_eq!(c_bits, c.to_bits());
            let Some(Val::F64(d_bits)) = round_trip(&Val::F64(d.to_bits()), &ValType::F64) else { panic!() };
            prop_assert_eq!(d_bits, d.to_bits());
            prop_assert_eq!(round_trip(&Val::V128(e.into()), &ValType::V128).unwrap().v128().unwrap().as_u128(), e);
        }
    }

    #[test]
    fn floats_have_one_short_form() {
        for (n, wanted) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-100.0, "-100"),
            (1.5, "1.5"),
            (123.456, "123.456"),
            (0.001, "0.001"),
            (1.25e-7, "0.000000125"),
            (1e-8, "1e-8"),
            (1.5e-8, "1.5e-8"),
            (1e20, "100000000000000000000"),
            (1e21, "1e21"),
            (-1.234e21, "-1.234e21"),
            (f64::MAX, "1.7976931348623157e308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        ] {
            assert_eq!(write_one(&Val::F64(f64::to_bits(n)), false).as_deref(), Some(wanted));
        }
        assert_eq!(
            write_one(&Val::F32(f32::MAX.to_bits()), false).as_deref(),
            Some("3.4028235e38")
        );
        assert_eq!(
            write_one(&Val::F32(16_777_216_f32.to_bits()), false).as_deref(),
            Some("16777216")
        );
    }

    #[test]
    fn what_does_not_fit_exactly_is_refused() {
        for (token, ty) in [
            ("1.0", ValType::I32),
            ("1e3", ValType::I64),
            ("2147483648", ValType::I32),
            ("9223372036854775808", ValType::I64),
            ("\"+1\"", ValType::I64),
            ("\" 1\"", ValType::I64),
            ("\"1\"", ValType::I32),
            ("true", ValType::I32),
            ("null", ValType::F64),
            ("\"inf\"", ValType::F64),
            ("1e39", ValType::F32),
            ("1e309", ValType::F64),
            ("\"0x1\"", ValType::V128),
            ("1", ValType::V128),
            ("null", ValType::FUNCREF),
        ] {
            assert!(read(token, &ty).is_none(), "{token} as {ty}");
        }
        assert!(read_unsigned("18446744073709551615", &ValType::I64).is_some());
        assert!(read_unsigned("18446744073709551616", &ValType::I64).is_none());
        assert!(read_unsigned("-1", &ValType::I64).is_none());
    }
}
