//! The trace that a request belongs to: W3C Trace Context (<https://www.w3.org/TR/trace-context/>).
//!
//! Where this server records no spans (`traces.endpoint`), it passes on what came as it came: a new parent would be a span that
//! nobody can find. What has no trace yet gets one with the request id as its id, so that the logs of all services agree on it.
//! Where it records spans, the one of the request is the parent of what is called.

use axum::http::{HeaderName, HeaderValue};

use crate::traces::SpanContext;

/// The header of the trace.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What the vendors of traces add to it.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A well-formed `traceparent`: `00-TRACE-PARENT-FLAGS`.
pub(crate) struct TraceParent(HeaderValue);

impl TraceParent {
    /// The one value of the header, if it is well formed; otherwise the request has no trace.
    pub(crate) fn read<'a>(mut lines: impl Iterator<Item = &'a HeaderValue>) -> Option<Self> {
        let value = lines.next().filter(|value| is_well_formed(value))?;
        lines.next().is_none().then(|| Self(value.clone()))
    }

    /// The begin of a trace, which nobody records, with this id: 32 hexadecimal digits.
    pub(crate) fn begin(id: &str) -> Option<HeaderValue> {
        let span = fastrand::u64(1..);
        let value = HeaderValue::try_from(format!("00-{id}-{span:016x}-00")).ok()?;
        is_well_formed(&value).then_some(value)
    }

    /// The id of the trace: 32 hexadecimal digits.
    pub(crate) fn id(&self) -> &str {
        self.0.to_str().ok().and_then(|text| text.get(3..35)).unwrap_or_default()
    }

    /// The context of the caller: trace, span, and whether it is recorded.
    pub(crate) fn caller(&self) -> Option<(u128, u64, bool)> {
        let text = self.0.to_str().ok()?;
        let trace = u128::from_str_radix(text.get(3..35)?, 16).ok()?;
        let span = u64::from_str_radix(text.get(36..52)?, 16).ok()?;
        let flags = u8::from_str_radix(text.get(53..55)?, 16).ok()?;
        Some((trace, span, flags & 1 == 1))
    }

    /// What is passed on from here.
    pub(crate) fn at(context: SpanContext) -> Option<Self> {
        let SpanContext { trace, span, is_sampled, .. } = context;
        let value = format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(is_sampled));
        HeaderValue::try_from(value).ok().map(Self)
    }

    pub(crate) fn header(&self) -> &HeaderValue {
        &self.0
    }
}

/// In lower-case hexadecimal digits; neither id is all zeros; versions after `00` may append fields (section 3.2).
fn is_well_formed(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    let shaped = |(index, byte): (usize, &u8)| match index {
        2 | 35 | 52 => *byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == b'0');
    (55..=512).contains(&bytes.len())
        && bytes[..55].iter().enumerate().all(shaped)
        && bytes.get(55).is_none_or(|byte| *byte == b'-' && !bytes.starts_with(b"00"))
        && !bytes.starts_with(b"ff")
        && !is_zero(&bytes[3..35])
        && !is_zero(&bytes[36..52])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_parent_has_the_form_of_the_standard() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (text, expected) in [
            (good.to_owned(), true),
            (format!("{good}-more"), false),
            // A later version may append fields.
            (format!("{}-more", good.replacen("00", "01", 1)), true),
            (format!("{good}more"), false),
            (good.to_uppercase(), false),
            (good[1..].to_owned(), false),
            (good.replacen("00", "ff", 1), false),
            (good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)), false),
            (good.replace("b7ad6b7169203331", &"0".repeat(16)), false),
            (String::new(), false),
        ] {
            let value = HeaderValue::try_from(&text).unwrap();
            let read = TraceParent::read([&value].into_iter());
            assert!(TraceParent::read([&value, &value].into_iter()).is_none());
            assert_eq!(read.is_some(), expected, "{text}");
            assert!(read.is_none_or(|parent| parent.id() == "0af7651916cd43dd8448eb211c80319c"));
        }
    }

    #[test]
    fn the_place_of_a_caller_is_read_and_that_of_a_request_is_passed_on() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let good = HeaderValue::from_static(good);
        let caller = TraceParent::read([&good].into_iter()).unwrap().caller().unwrap();
        assert_eq!(caller, (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331, true));
        let context = SpanContext { trace: caller.0, span: 7, parent: caller.1, is_sampled: false };
        let passed = TraceParent::at(context).unwrap();
        assert_eq!(passed.header(), "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-00");
    }

    #[test]
    fn a_request_without_a_trace_begins_one_with_its_id() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let begun = TraceParent::begin(id).unwrap();
        assert_eq!(TraceParent::read([&begun].into_iter()).unwrap().id(), id);
        assert!(TraceParent::begin("of-a-client").is_none());
    }
}
