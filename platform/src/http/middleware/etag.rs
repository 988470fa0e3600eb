//! `ETag` and `If-None-Match` (RFC 9110, sections 8.8.3 and 13.1.2) for responses whose body is complete in memory.
//!
//! The tag is the 128-bit XXH3 hash of the body: 32 hexadecimal digits. It identifies the content and not the encoding:
//! a compressed response has the same tag as a weak one. A stream is never waited for: a body that is not complete yet
//! is sent without a tag.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as Task, Poll, Waker};

use axum::body::Body;
use axum::http::HeaderValue;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use twox_hash::XxHash3_128;
use uuid::Uuid;

/// The tag of a body that is complete in memory; `None` for any other body. The content of the body does not change.
pub(crate) fn of_body(body: &mut Body) -> Result<Option<HeaderValue>, axum::Error> {
    if body.is_end_stream() {
        return Ok(Some(EMPTY));
    }
    let size = body.size_hint();
    let mut frames = VecDeque::new();
    let mut task = Task::from_waker(Waker::noop());
    let ended = loop {
        match Pin::new(&mut *body).poll_frame(&mut task) {
            Poll::Ready(Some(frame)) => frames.push_back(frame?),
            Poll::Ready(None) => break true,
            Poll::Pending => break false,
        }
        if body.is_end_stream() {
            break true;
        }
    };
    if frames.is_empty() && !ended {
        return Ok(None);
    }
    // Nearly always, the body is one frame.
    let single = match (ended, frames.make_contiguous()) {
        (true, [frame]) => frame.data_ref().cloned(),
        _ => None,
    };
    if let Some(bytes) = single {
        let tag = of(&bytes);
        *body = Body::from(bytes);
        return Ok(Some(tag));
    }
    let data = || frames.iter().filter_map(Frame::data_ref).map(Bytes::as_ref).collect::<Vec<_>>();
    let tag = ended.then(|| of(&data().concat()));
    *body = Body::new(Replayed { frames, rest: std::mem::take(body), size });
    Ok(tag)
}

/// A body of which some frames have been read already.
struct Replayed {
    frames: VecDeque<Frame<Bytes>>,
    rest: Body,
    /// How much data is left, in `frames` and `rest` together.
    size: SizeHint,
}

impl HttpBody for Replayed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.frames.pop_front() {
            Some(frame) => {
                let read = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.size = match self.size.exact() {
                    Some(exact) => SizeHint::with_exact(exact.saturating_sub(read)),
                    None => SizeHint::default(),
                };
                Poll::Ready(Some(Ok(frame)))
            }
            None => Pin::new(&mut self.rest).poll_frame(task),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.frames.is_empty() { self.rest.size_hint() } else { self.size }
    }
}

/// The strong tag of a body.
fn of(body: &[u8]) -> HeaderValue {
    let mut tag = [b'"'; 34];
    Uuid::from_u128(XxHash3_128::oneshot(body)).simple().encode_lower(&mut tag[1..33]);
    HeaderValue::from_bytes(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The tag of an empty body, so that it need not be hashed.
const EMPTY: HeaderValue = HeaderValue::from_static("\"99aa06d3014798d86001c324468d497f\"");

/// The weak form of a strong tag.
pub(crate) fn weak(tag: &HeaderValue) -> Option<HeaderValue> {
    if tag.as_bytes().starts_with(b"W/") {
        return None;
    }
    let mut weak = b"W/".to_vec();
    weak.extend_from_slice(tag.as_bytes());
    HeaderValue::from_bytes(&weak).ok()
}

/// Whether the client already has the content with this tag. The comparison is the weak one (RFC 9110, section
/// 8.8.3.2).
pub(crate) fn matches(condition: &HeaderValue, tag: &HeaderValue) -> bool {
    let tag = opaque(tag.as_bytes());
    let list = condition.as_bytes();
    list.trim_ascii() == b"*" || list.split(|byte| *byte == b',').any(|one| opaque(one.trim_ascii()) == tag)
}

/// The tag without the mark of a weak one.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn the_tag_depends_on_the_content_alone() {
        assert_eq!(of(b"a"), of(b"a"));
        assert_ne!(of(b"a"), of(b"b"));
        assert_eq!(of(b"a").len(), 34);
        assert_eq!(of(b""), EMPTY);
    }

    async fn read(body: Body) -> Vec<u8> {
        BodyExt::collect(body).await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn a_complete_body_is_tagged_and_can_still_be_read_in_order() {
        for pieces in [&[][..], &["a"], &["", "a"], &["a", "b", "c"]] {
            let mut body = Body::from_stream(stream::iter(pieces.iter().copied().map(Ok::<_, io::Error>)));
            assert_eq!(of_body(&mut body).unwrap(), Some(of(pieces.concat().as_bytes())), "{pieces:?}");
            assert_eq!(read(body).await, pieces.concat().as_bytes(), "{pieces:?}");
        }
        let broken = [Ok("a"), Err(io::Error::other("the disk is gone"))];
        assert!(of_body(&mut Body::from_stream(stream::iter(broken))).is_err());
    }

    #[tokio::test]
    async fn an_incomplete_body_has_no_tag_and_loses_nothing() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<&str>();
        let late = stream::once(async { Ok::<_, io::Error>(receiver.await.unwrap()) });
        let mut body = Body::from_stream(stream::iter([Ok("a"), Ok("b")]).chain(late));
        assert_eq!(of_body(&mut body).unwrap(), None);
        sender.send("c").unwrap();
        assert_eq!(read(body).await, b"abc");
    }

    #[test]
    fn if_none_match_may_be_a_list_a_star_or_a_weak_tag() {
        let tag = of(b"a");
        let text = tag.to_str().unwrap();
        for header in [text.to_owned(), format!("W/{text}"), format!("\"x\", {text}"), "*".to_owned()] {
            assert!(matches(&HeaderValue::try_from(&header).unwrap(), &tag), "{header}");
        }
        assert!(!matches(&HeaderValue::from_static("\"x\""), &tag));
        assert!(!matches(&HeaderValue::from_static(""), &tag));
    }
}
