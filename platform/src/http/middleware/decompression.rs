//! Decompresses a request body.
//!
//! It uses `async-compression` directly. The layer of tower-http over it reads only the first member of a gzip body,
//! ignores garbage after the end, and does not limit the window of zstd.

use std::io;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::error::{Error, Kind};

/// The supported encodings of a request body, as the header `Accept-Encoding` of a 415 (RFC 9110, section 12.5.3).
const ENCODINGS: &str = "gzip, br, zstd, deflate";

/// The largest window of zstd: 8 MiB. Decoders must support it, and encoders must not exceed it (RFC 9659, section 3).
const ZSTD_WINDOW_LOG: u32 = 23;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Gzip,
    Brotli,
    Zstd,
    /// HTTP calls the zlib format deflate.
    Deflate,
}

impl Encoding {
    /// The encoding that the headers name. Several encodings are not supported.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Unsupported> {
        let mut lines = headers.get_all(CONTENT_ENCODING).iter();
        let Some(line) = lines.next() else { return Ok(None) };
        let name = line.as_bytes().to_ascii_lowercase();
        match &name[..] {
            _ if lines.next().is_some() => Err(Unsupported),
            b"gzip" | b"x-gzip" => Ok(Some(Self::Gzip)),
            b"br" => Ok(Some(Self::Brotli)),
            b"zstd" => Ok(Some(Self::Zstd)),
            b"deflate" => Ok(Some(Self::Deflate)),
            b"identity" => Ok(None),
            _ => Err(Unsupported),
        }
    }

    /// The decompressed body; its size is not limited yet. Not inlined, so that the decoders take no space on the stack
    /// of requests without compression.
    #[inline(never)]
    pub(crate) fn decode(self, body: Body) -> Body {
        let compressed = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        match self {
            Self::Gzip => {
                let mut decoder = GzipDecoder::new(compressed);
                decoder.multiple_members(true);
                decoded(decoder)
            }
            Self::Brotli => {
                let mut decoder = BrotliDecoder::new(compressed);
                decoder.multiple_members(true);
                decoded(decoder)
            }
            Self::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG);
                let mut decoder = ZstdDecoder::with_params(compressed, &[window]);
                decoder.multiple_members(true);
                decoded(decoder)
            }
            Self::Deflate => {
                let mut decoder = ZlibDecoder::new(compressed);
                decoder.multiple_members(true);
                decoded(decoder)
            }
        }
    }
}

fn decoded(decoder: impl AsyncRead + Send + 'static) -> Body {
    Body::from_stream(ReaderStream::new(decoder))
}

/// The response 415, for any other encoding.
pub(crate) struct Unsupported;

impl IntoResponse for Unsupported {
    fn into_response(self) -> Response {
        let error = Error::new(Kind::UnsupportedMediaType)
            .with_message(format!("The body's Content-Encoding is none of {ENCODINGS}"));
        ([(ACCEPT_ENCODING, ENCODINGS)], error).into_response()
    }
}
