//! Bodies of responses: too large, compressed, cut off, in pieces.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use platform::connector::Cause;
use platform::error::Error;
use serde_json::{Value, json};

use super::script::{Act, ok, response};
use super::start;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const LIMIT: &[(&str, &str)] = &[("RESPONSE_LIMIT", "64KiB")];

#[tokio::test]
async fn a_body_above_the_limit_is_refused_also_when_it_is_compressed_or_endless() {
    let bomb = gzip(&vec![0; 50 << 20]);
    assert!(bomb.len() < 64 << 10);
    for large in [
        response(200, "", vec![b'x'; (64 << 10) + 1]),
        response(200, "content-encoding: gzip\r\n", bomb),
        Act::Endless,
        Act::Stall(b"HTTP/1.1 200 X\r\ncontent-length: 99999999\r\n\r\n".to_vec()),
    ] {
        let (upstream, connector) = start(&[large], LIMIT).await;
        let error = connector.get("/x").send().await.unwrap_err();
        assert_eq!(error.cause(), Cause::TooLarge, "{error}");
        assert_eq!((Error::from(error).status(), upstream.count()), (502, 1));
    }
    // The controls: at the limit, and with a limit of its own.
    let (_upstream, connector) = start(&[response(200, "", vec![b'x'; 64 << 10])], LIMIT).await;
    assert_eq!(connector.get("/x").send().await.unwrap().bytes().len(), 64 << 10);
    let (_upstream, connector) = start(&[response(200, "", vec![b'x'; 65 << 10])], LIMIT).await;
    assert_eq!(connector.get("/x").limit(1 << 20).send().await.unwrap().bytes().len(), 65 << 10);
}

#[tokio::test]
async fn a_compressed_body_is_decompressed_and_a_broken_one_is_an_error() {
    let packed = gzip(br#"{"a": 1}"#);
    let (upstream, connector) = start(&[response(200, "content-encoding: gzip\r\n", &packed)], &[]).await;
    let response_ = connector.get("/x").send().await.unwrap();
    assert_eq!(response_.json::<Value>().unwrap(), json!({"a": 1}));
    assert!(upstream.heads()[0].contains("accept-encoding: "));
    let cut = response(200, "content-encoding: gzip\r\n", &packed[..packed.len() - 9]);
    let (_upstream, connector) = start(&[cut], &[]).await;
    assert_eq!(connector.get("/x").send().await.unwrap_err().cause(), Cause::Broken);
}

#[tokio::test]
async fn a_length_that_is_wrong_is_no_response() {
    for wrong in [
        "content-length: 10\r\n\r\nhalf",
        "content-length: -1\r\n\r\n",
        "content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "transfer-encoding: chunked\r\n\r\n5\r\nab",
        "transfer-encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    ] {
        let (_upstream, connector) =
            start(&[Act::Send(format!("HTTP/1.1 200 X\r\n{wrong}").into())], &[]).await;
        let error = connector.get("/x").send().await.unwrap_err();
        assert_eq!((error.cause(), Error::from(error).status()), (Cause::Broken, 502), "{wrong}");
    }
    // What comes after the declared length is not part of the response.
    let (_upstream, connector) =
        start(&[Act::Send(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nabcdef".to_vec())], &[]).await;
    assert_eq!(&connector.get("/x").send().await.unwrap().bytes()[..], b"ab");
}

#[tokio::test]
async fn what_is_not_the_expected_json_is_an_error_that_does_not_quote_it() {
    for body in ["hunter2", "{\"a\": \"hunter2\"}", "\"hunter2\"", ""] {
        let (_upstream, connector) = start(&[ok(body)], &[]).await;
        let response = connector.get("/x").send().await.unwrap();
        let error = response.json::<Vec<u64>>().unwrap_err();
        assert_eq!(error.cause(), Cause::InvalidBody);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(Error::from(error).status(), 502);
    }
}

#[tokio::test]
async fn a_stream_is_bounded_in_size_and_time_and_counts_as_a_call_until_its_end() {
    let (_upstream, connector) = start(&[ok("in pieces")], &[]).await;
    let stream = connector.get("/x").stream().await.unwrap().into_stream();
    let pieces: Vec<_> = std::pin::pin!(stream).map(Result::unwrap).collect().await;
    assert_eq!(pieces.concat(), b"in pieces");

    let settings = [LIMIT[0], ("CONCURRENCY", "1")];
    let (_upstream, connector) = start(&[Act::Endless], &settings).await;
    let mut streamed = connector.get("/x").stream().await.unwrap();
    assert_eq!(connector.get("/x").send().await.unwrap_err().cause(), Cause::Overloaded);
    let mut bytes = 0;
    let error = loop {
        match streamed.chunk().await {
            Ok(chunk) => bytes += chunk.unwrap().len(),
            Err(error) => break error,
        }
    };
    assert!(error.cause() == Cause::TooLarge && bytes <= 64 << 10, "{error}");
    drop(streamed);
    assert_eq!(connector.get("/x").send().await.unwrap_err().cause(), Cause::TooLarge);

    let (_upstream, connector) = start(&[Act::Drip(Duration::from_millis(10))], &[("TIMEOUT", "2s")]).await;
    let mut streamed = connector.get("/x").stream().await.unwrap();
    let error = loop {
        if let Err(error) = streamed.chunk().await {
            break error;
        }
    };
    assert_eq!(error.cause(), Cause::TimedOut { by_request: false });
}

/// hyper decodes `chunked`, and gives away what it is coded with besides.
#[tokio::test]
async fn a_response_in_another_transfer_coding_is_broken() {
    let coded =
        Act::Send(b"HTTP/1.1 200 X\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".to_vec());
    let (_upstream, connector) = start(&[coded], LIMIT).await;
    assert_eq!(connector.get("/x").send().await.unwrap_err().cause(), Cause::Broken);
}
